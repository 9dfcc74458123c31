"""Live against offline on known audio, by window floor and cut rule, with session and policy on a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from callreel.audio.pcm import Pcm, samples, seconds
from callreel.audio.vad import Vad
from callreel.engines.base import Decoded, Engine
from callreel.live.session import LiveOptions, Session, Work
from callreel.text import Segment

CHUNK_S = 0.256  # what WhisperLive's client sends at a time


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One recording through a session: what was said, and when each word was certain."""

    segments: list[Segment]
    commit_delays_s: list[float]  # of each word: the moment it was committed minus the moment it had been said
    decodes: int
    decoded_audio_s: float


class VirtualRun:
    """One session played in real time on a virtual clock; each decode takes `decode_s`, and audio never waits for it."""

    def __init__(self, engine: Engine, options: LiveOptions, *, decode_s: float = 0.2) -> None:
        self._engine, self._decode_s = engine, decode_s
        self._session, self._vad = Session(options, track="main"), Vad()
        self._out: tuple[Work, Decoded, float] | None = None  # what, its result, when that comes
        self._segments: list[Segment] = []
        self._delays_s: list[float] = []
        self._decodes = 0
        self._decoded_s = 0.0

    def play(self, pcm: Pcm) -> LiveRun:
        chunk = samples(CHUNK_S)
        for at in range(0, len(pcm), chunk):
            part = np.array(pcm[at : at + chunk])
            now = seconds(at + len(part))
            self._settle(now)
            self._session.feed(part, self._vad.feed(part))
            self._start(now)
        self._session.flush()
        now = seconds(len(pcm))
        while not self._session.idle:
            self._settle(now)
            self._start(now)
            now = self._out[2] if self._out else now
        return LiveRun(self._segments, self._delays_s, self._decodes, round(self._decoded_s, 2))

    def _start(self, now: float) -> None:
        if self._session.wants() is None:
            return
        work = self._session.take()
        self._out = work, self._engine.decode([work.window], work.options)[0], now + self._decode_s
        self._decodes += 1
        self._decoded_s += seconds(len(work.window.pcm))

    def _settle(self, now: float) -> None:
        if self._out is None or now < self._out[2]:
            return
        work, result, at = self._out
        self._out = None
        agreement = work.utterance.agreement
        known = len(agreement.committed)
        self._segments += [s for s in self._session.decoded(work, result) if s.completed]
        self._delays_s += [max(0.0, at - seconds(word.end)) for word in agreement.committed[known:]]
