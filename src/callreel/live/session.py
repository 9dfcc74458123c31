"""One track's live transcription, without sockets, threads or clocks: audio and speech probabilities in, work for the
engine out, segments out. The scheduler and the benchmark's virtual clock drive the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from callreel.audio.pcm import BYTES_PER_SAMPLE, Pcm, samples, seconds
from callreel.audio.vad import FRAME, SILENCE_THRESHOLD, SPEECH_THRESHOLD
from callreel.engines.base import Decoded, DecodeOptions, Window
from callreel.live.policy import Agreement, CutRule, LiveOptions, Spoken, Utterance, phrase, placed, window_start
from callreel.offline.chunk import BREAK_S, PADDING_S, quietest
from callreel.offline.profiles import is_invented
from callreel.text import Segment, Word, join_words

__all__ = ["CutRule", "LiveOptions", "Session", "Utterance", "Work"]

MIN_SPEECH_S = 0.1  # shorter bursts are clicks
PAUSE_S = 0.1  # a gap in speech this long is a place where a window may start
SURE_OF_LANGUAGE = 0.8
LANGUAGE_SPEECH_S = 6.0  # after this much speech the likeliest language is taken


@dataclass(frozen=True, slots=True)
class Work:
    """One decode that a session wants. `final` must be done; a partial may be skipped, a newer one follows."""

    window: Window
    options: DecodeOptions
    final: bool
    start: int
    end: int
    utterance: Utterance


class Session:
    """Feed it what was accepted, give it what was decoded, in any rhythm; at most one decode is out at a time.

    `start` is the sample at which this session takes over (a stream resumed after a crash starts behind what is
    stored); `at` may lie before it, so that the model hears how the word began. `before` are the last words stored,
    in seconds on the track's clock: with them the seam is found by text, else by time alone.
    """

    def __init__(
        self,
        options: LiveOptions,
        *,
        track: str,
        epoch: int = 1,
        seq: int = 0,
        start: int = 0,
        at: int = 0,
        before: Sequence[Word] = (),
    ) -> None:
        self.options, self._track, self._epoch, self._seq = options, track, epoch, seq
        self.language = options.language
        self.language_probability = 1.0
        self._votes: dict[str, float] = {}
        self._pcm, self._pcm_start = bytearray(), at  # appends and drops at its front without copying the rest
        self._frame_at = at
        self._speech_start: int | None = None  # of the burst being heard
        self._speech_end = at
        self._floor = max(start, at)  # no word before this sample is ours any more
        self._pauses: deque[int] = deque([at])  # where a window may start without cutting a word
        self._tail = placed(before, 0)  # the last words committed
        self._flushed_at: int | None = None  # in the middle of speech
        self._current: Utterance | None = None
        self._finals: deque[Utterance] = deque()
        self._out: Work | None = None
        self._revision = 0

    # -- what comes in

    def feed(self, pcm: Pcm, probabilities: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        """Audio, and the speech probabilities of the frames it completed."""
        self._pcm += pcm.tobytes()
        for probability in probabilities:
            self._frame(float(probability))
        self._forget()

    def flush(self) -> None:
        """No more audio for now (the end, or a stall): the utterance that goes on is complete as it is."""
        if self._speech_start is not None and self._current is None:
            self._begin(self._speech_start)
        if self._current is not None:
            self._flushed_at = self._speech_end if self._speech_start is not None else None
            self._finish(self.received)
        self._speech_start = None

    @property
    def received(self) -> int:
        """Samples heard so far, on the track's clock."""
        return self._pcm_start + len(self._pcm) // BYTES_PER_SAMPLE

    @property
    def idle(self) -> bool:
        """Nothing to decode and nothing out: all that was fed is in segments."""
        return self._out is None and not self._finals and self._current is None

    # -- what the engine is asked for

    def wants(self) -> bool | None:
        """True: a decode is due that must be done. False: a partial one. None: nothing (or one is out)."""
        if self._out is not None:
            return None
        if self._finals:
            return True
        u = self._current
        if u is None:
            return None
        if self._is_full(u):
            return True
        return False if self._frame_at - u.heard_until >= samples(self.options.hop_s) else None

    def window_s(self) -> float:
        """Length of the window that `take` would give now."""
        start, end = self._bounds(self._next())
        return seconds(end - start)

    def decode_options(self) -> DecodeOptions:
        o = self.options
        return DecodeOptions(language=self.language, task=o.task, hotwords=o.hotwords)

    def take(self) -> Work:
        """The decode that `wants` spoke of, with the newest audio that fits into a window."""
        u = self._next()
        if not u.agreement.committed:
            u.agreement.follow(self._tail, self._floor)
        final = bool(self._finals) or self._is_full(u)
        start, end = self._bounds(u)
        self._out = Work(
            Window(self._kept(start, end), self.options.prompt), self.decode_options(), final, start, end, u
        )
        return self._out

    def decoded(self, work: Work, result: Decoded | None) -> list[Segment]:
        """Take a result (None: the engine gave it up). Returns segments: completed ones, then at most one partial."""
        self._out = None
        u = work.utterance
        u.heard_until = work.end
        words = [] if result is None or is_invented(result) else placed(result.words, work.start)
        if result is not None and words:
            self._vote(result, seconds(work.end - work.start))
        done = work.end == u.end and (work.final or result is not None)
        if result is None and (done or work.final):
            u.agreement.force(work.end)  # the guess is the best that is known
        elif done:
            u.agreement.heard_last(words, work.start)
        elif result is not None:
            u.agreement.heard(words, work.start, work.end)
        if done:
            self._finals.popleft()
            self._floor = max(self._floor, u.agreement.committed_until)
            self._tail = u.agreement.tail()
        elif work.end - work.start >= samples(self.options.max_window_s):
            self._make_room(u, work.start)
        return self._segments(u, done=done, result=result)

    # -- speech to utterances

    def _frame(self, probability: float) -> None:
        start = self._frame_at
        self._frame_at += FRAME
        if probability >= (SPEECH_THRESHOLD if self._speech_start is None else SILENCE_THRESHOLD):
            self._speaking(start)
        elif self._speech_start is not None and self._frame_at - self._speech_end >= samples(PAUSE_S):
            self._speech_start = None
        u = self._current
        if u is not None and self._frame_at - self._speech_end >= samples(self.options.endpoint_silence_s):
            self._finish(self._speech_end + samples(PADDING_S))
            self._speech_start = None

    def _speaking(self, start: int) -> None:
        if self._speech_start is None:
            self._pause(self._speech_end, start)
            self._speech_start = start
        self._speech_end = self._frame_at
        if self._current is None and self._speech_end - self._speech_start >= samples(MIN_SPEECH_S):
            self._begin(self._speech_start)

    def _pause(self, start: int, end: int) -> None:
        """A window may start in this gap, but none may reach over a long one: engines invent text in silence."""
        if end - start >= samples(BREAK_S):
            self._pauses.clear()
        self._pauses.append(max((start + end) // 2, end - samples(PADDING_S)))
        while len(self._pauses) > 1 and self._pauses[1] < end - samples(self.options.max_window_s):
            self._pauses.popleft()

    def _begin(self, speech_start: int) -> None:
        start = next(pause for pause in reversed(self._pauses) if pause <= speech_start)
        # Speech that a flush cut in two: the word at the cut is only whole in a window that starts before it.
        torn = self._flushed_at is not None and speech_start - self._flushed_at < samples(PAUSE_S)
        self._current = Utterance(start, Agreement(max(self._floor, start if not torn else 0)), start, torn=torn)

    def _finish(self, end: int) -> None:
        assert self._current is not None
        self._current.end = min(end, self.received)
        self._finals.append(self._current)
        self._current = None

    # -- windows

    def _next(self) -> Utterance:
        u = self._finals[0] if self._finals else self._current
        assert u is not None
        return u

    def _bounds(self, u: Utterance) -> tuple[int, int]:
        """The next window of `u`. More speech than a window holds is decoded from its start on, none is passed over."""
        heard = u.end if u.end is not None else self._frame_at
        start = max(window_start(u, self._pauses, self.options), self._pcm_start)
        start = min(start, max(heard - samples(MIN_SPEECH_S), self._pcm_start))
        return start, min(heard, start + samples(self.options.max_window_s))

    def _is_full(self, u: Utterance) -> bool:
        start, end = self._bounds(u)
        return end - start >= samples(self.options.max_window_s)

    def _make_room(self, u: Utterance, start: int) -> None:
        """A full window moves on without agreement: speech without end must not grow latency or memory."""
        limit = samples(self.options.max_window_s)
        half, quiet_from = start + limit // 2, start + 3 * limit // 8
        if u.agreement.committed_until < quiet_from:
            u.agreement.force(half)
        if u.agreement.committed_until < quiet_from:
            u.agreement.skip(quiet_from + quietest(self._kept(quiet_from, half), 0, half - quiet_from))
            u.start = max(u.start, u.agreement.committed_until)

    def _kept(self, start: int, end: int) -> Pcm:
        """A copy of samples [start, end)."""
        low = start - self._pcm_start
        return np.frombuffer(self._pcm, np.int16, count=end - start, offset=low * BYTES_PER_SAMPLE).copy()

    def _forget(self) -> None:
        """Drop audio that no window can reach any more."""
        utterances = [*self._finals, *([self._current] if self._current else [])]
        starts = [window_start(u, self._pauses, self.options) for u in utterances]
        keep = min([*starts, self._frame_at - samples(BREAK_S)])
        if keep > self._pcm_start:
            del self._pcm[: (keep - self._pcm_start) * BYTES_PER_SAMPLE]
            self._pcm_start = keep

    # -- results

    def _vote(self, result: Decoded, duration_s: float) -> None:
        if self.language is not None or result.language is None:
            return
        weight = result.language_probability * duration_s
        self._votes[result.language] = self._votes.get(result.language, 0.0) + weight
        best = max(self._votes, key=lambda language: self._votes[language])
        total = sum(self._votes.values())
        if total >= LANGUAGE_SPEECH_S or (result.language_probability >= SURE_OF_LANGUAGE and duration_s >= 1.0):
            self.language, self.language_probability = best, round(self._votes[best] / total, 4)

    def _segments(self, u: Utterance, *, done: bool, result: Decoded | None) -> list[Segment]:
        segments = []
        pending = u.agreement.committed[u.completed_words :]
        if done:
            if pending:
                segments.append(self._segment(pending, completed=True, result=result))
                self._seq += 1
            return segments
        if pending and seconds(pending[-1].end - pending[0].start) >= self.options.max_segment_s:
            n = phrase(pending)
            segments.append(self._segment(pending[:n], completed=True, result=result))
            self._seq += 1
            u.completed_words += n
            pending = pending[n:]
        if pending or u.agreement.guess:
            segments.append(self._segment([*pending, *u.agreement.guess], completed=False, result=None))
        return segments

    def _segment(self, words: list[Spoken], *, completed: bool, result: Decoded | None) -> Segment:
        self._revision += 1
        spoken = tuple(word.as_word() for word in words)
        segment = Segment(
            track=self._track,
            seq=self._seq,
            start=spoken[0].start,
            end=spoken[-1].end,
            text=join_words(spoken),
            words=spoken,
            language=self.language or (result.language if result else None),
            completed=completed,
            epoch=self._epoch,
            revision=self._revision,
        )
        return segment if result is None else replace(segment, decode=result.stats)
