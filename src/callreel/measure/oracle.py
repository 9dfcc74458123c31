"""The oracle: an engine that knows the recordings it will be given, for load tests whose text has to be right.

It finds each window in the known audio, pays for it what a real model of the weights' size would pay (features,
encoder, a decode of as many tokens as the words need, word alignment), and answers with the reference words. So the
word error rate of a load test measures what the server did to the audio and the words, and nothing else.
"""

from __future__ import annotations

import json
import shutil
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from ctranslate2 import StorageView
from faster_whisper import WhisperModel

from callreel.audio.decode import decode as decode_file
from callreel.audio.pcm import EMPTY, SAMPLE_RATE, Pcm, samples, seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, EngineSpec, Window, as_float
from callreel.engines.whisper import RELEASED_MIN_WINDOW_S
from callreel.errors import InvalidInput
from callreel.measure.synthetic import N_POSITIONS, read_synthetic, write_weights
from callreel.text import DecodeStats, Word

TOKENS_PER_WORD = 1.3  # of Whisper's multilingual tokenizer on English speech, punctuation included
MAX_TOKENS = 200  # more than 30 s of speech need; with a prompt of MAX_PROMPT_TOKENS the decoder has room for 220
MAX_PROMPT_TOKENS = 223  # what Whisper takes of the text before
ENCODER_STEP = 320  # samples: 20 ms, one position of the encoder

ANCHOR_REACH = 32  # samples to each side over which an anchor is the maximum, and which its fingerprint covers
ANCHOR_FLOOR = 256  # of 32768 (-42 dBFS): below it a maximum is noise, and silence has no anchors
# Samples are fingerprinted in steps of 64: one unit of noise then moves 1 in 100 samples over a border and leaves 3 of
# 4 fingerprints as they are, and a few are enough to find a word.
FINGERPRINT_STEP_BITS = 6
FINGERPRINT_STRIDE = 2  # samples
FINGERPRINT_WEIGHTS = np.random.default_rng(0).integers(1 << 62, size=2 * ANCHOR_REACH // FINGERPRINT_STRIDE)
COMMON = 64  # places; a fingerprint in more of them says nothing about where
MIN_VOTES = 2
MAX_ALIGNMENTS = 64  # a loop of 1 s recordings puts 30 into a window; the rest is for losses
TOLERANCE = 2  # of 32768, by which a sample may differ from the reference

ENGINE = "callreel.measure.oracle:load"  # for --engine and --live-engine
WEIGHTS, AUDIO = "weights", "audio"  # in the folder that is its model

Integers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]


def prepare(folder: Path, size: str, *, tokenizer_from: Path, audio: Path) -> Path:
    """Make `folder` the model that `load` takes: synthetic weights of `size` and copies of the recordings that
    `audio`/references.json names. Returns `folder`; done twice, it leaves the weights as they are.
    """
    write_weights(size, folder / WEIGHTS, tokenizer_from=tokenizer_from)
    (folder / AUDIO).mkdir(exist_ok=True)
    for name in ("references.json", *json.loads((audio / "references.json").read_text())):
        shutil.copyfile(audio / name, folder / AUDIO / name)
    return folder


def load(spec: EngineSpec) -> OracleEngine:
    """The oracle as the server's engine: `spec.model` is a folder that `prepare` wrote. Raises ModelMissing.

    Windows have the floor of released Whisper if `spec` names none: that is the price to be paid for a real model.
    """
    folder = Path(spec.model)
    floor_s = RELEASED_MIN_WINDOW_S if spec.min_window_s is None else spec.min_window_s
    return OracleEngine(folder / WEIGHTS, folder / AUDIO, threads=spec.threads, min_window_s=floor_s)


@dataclass(frozen=True, slots=True)
class Recording:
    """Known audio. `words` are in order, in seconds from the first sample of `pcm`, with their leading spaces."""

    pcm: Pcm
    words: tuple[Word, ...]
    language: str | None = None


def known_recordings(folder: Path) -> list[Recording]:
    """All recordings with words that `folder`/references.json names: each channel by itself, and all mixed to mono.

    The file maps names to {language, channels, tracks: {name: {utterances: [{words: [{word, start, end}]}]}}}; the
    tracks of a file with several channels stand in the order of the channels.
    """
    found: list[Recording] = []
    for name, entry in json.loads((folder / "references.json").read_text()).items():
        tracks = [_track_words(track) for track in entry["tracks"].values()]
        everything = tuple(sorted((word for words in tracks for word in words), key=lambda word: word.start))
        if everything:
            mono = np.concatenate([EMPTY, *decode_file(folder / name)])
            found.append(Recording(mono, everything, entry["language"]))
        if len(tracks) > 1 and entry["channels"] == len(tracks):
            channels = _channels(folder / name)
            found += [Recording(pcm, words, entry["language"]) for pcm, words in zip(channels, tracks, strict=True)]
    return found


def _track_words(track: dict[str, Any]) -> tuple[Word, ...]:
    words = (word for utterance in track["utterances"] for word in utterance["words"])
    return tuple(Word(f" {word['word']}", word["start"], word["end"]) for word in words)


def _channels(source: Path) -> list[Pcm]:
    """The channels of a file at 16 kHz, one by one."""
    resampler = av.AudioResampler(format="s16p", rate=SAMPLE_RATE)
    with av.open(str(source)) as container:
        blocks = [out.to_ndarray() for frame in (*container.decode(audio=0), None) for out in resampler.resample(frame)]
    return list(np.concatenate(blocks, axis=1))


class KnownAudio:
    """Finds words in audio that was cut out of known recordings, at any sample, with anything before and after it.

    Peaks of the signal are anchors; an anchor's fingerprint leads to places in the recordings, and anchors that agree
    on how the window lies on a recording propose that alignment. A proposal is only believed word by word: a word was
    heard if all its samples are there. The recordings stand behind one another on one axis, so that an alignment is
    one number, the shift from the window to the axis.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._axis: Pcm = np.concatenate([EMPTY, *(recording.pcm for recording in recordings)])
        placed: list[tuple[int, int, str, str | None]] = []  # start, end: samples on the axis
        begin = 0
        for recording in recordings:
            for word in recording.words:
                span = begin + samples(word.start), begin + samples(word.end)
                placed.append((*span, word.word, recording.language))
            begin += len(recording.pcm)
        self._words = sorted(placed)
        self._starts = [start for start, *_ in self._words]

        positions = _anchors(self._axis)
        fingerprints = _fingerprints(self._axis, positions)
        order = np.argsort(fingerprints, kind="stable")
        self._fingerprints, self._positions = fingerprints[order], positions[order]

    def find(self, pcm: Pcm) -> tuple[tuple[Word, ...], str | None]:
        """The known words that lie wholly inside `pcm`, in seconds from its start, and the language of most of them."""
        heard: list[tuple[int, int, str, str | None]] = []
        for shift in self._shifts(pcm):
            # Where the same audio is known twice, the alignment with more votes has said these words already.
            heard += [
                word
                for word in self._words_at(shift, pcm)
                if not any(word[0] < end and start < word[1] for start, end, *_ in heard)
            ]
        heard.sort()
        languages = [language for *_, language in heard]
        words = tuple(Word(text, seconds(start), seconds(end)) for start, end, text, _ in heard)
        return words, max(languages, key=languages.count, default=None)

    def _shifts(self, pcm: Pcm) -> list[int]:
        """How `pcm` may lie on the axis, the shift with most votes first."""
        positions = _anchors(pcm)
        fingerprints = _fingerprints(pcm, positions)
        first = np.searchsorted(self._fingerprints, fingerprints, side="left")
        places = np.searchsorted(self._fingerprints, fingerprints, side="right") - first
        places[places > COMMON] = 0
        anchor = np.repeat(np.arange(len(positions)), places)
        nth_place = np.arange(len(anchor)) - np.repeat(np.cumsum(places) - places, places)
        shifts, votes = np.unique(self._positions[first[anchor] + nth_place] - positions[anchor], return_counts=True)
        best = np.argsort(-votes, kind="stable")[:MAX_ALIGNMENTS]
        return [int(shift) for shift in shifts[best[votes[best] >= MIN_VOTES]]]

    def _words_at(self, shift: int, pcm: Pcm) -> Iterator[tuple[int, int, str, str | None]]:
        """The words of which every sample is in `pcm` when it lies at `shift`; times are samples of `pcm`."""
        for start, end, text, language in self._words[bisect_left(self._starts, shift) :]:
            if start >= shift + len(pcm):
                return
            if end <= shift + len(pcm) and _same(self._axis[start:end], pcm[start - shift : end - shift]):
                yield start - shift, end - shift, text, language


def _same(a: Pcm, b: Pcm) -> bool:
    return bool((np.abs(a.astype(np.int32) - b) <= TOLERANCE).all())


def _anchors(pcm: Pcm) -> Integers:
    """Where `pcm` is loud and the maximum of all samples at most ANCHOR_REACH away: it hangs on these samples alone."""
    width = 2 * ANCHOR_REACH
    if len(pcm) <= width:
        return np.zeros(0, np.int64)
    maximum, covered = pcm, 1  # maximum[i] is that of pcm[i : i + covered]; doubling is faster than sliding
    while covered < width:
        maximum = np.maximum(maximum[:-covered], maximum[covered:])
        covered *= 2
    inner = pcm[ANCHOR_REACH : len(pcm) - ANCHOR_REACH + 1]
    return np.flatnonzero((inner == maximum) & (inner >= ANCHOR_FLOOR)) + ANCHOR_REACH


def _fingerprints(pcm: Pcm, positions: Integers) -> Integers:
    """A hash of the shape of the signal round each of `positions`, which must be ANCHOR_REACH away from both ends."""
    around = np.arange(-ANCHOR_REACH, ANCHOR_REACH, FINGERPRINT_STRIDE)
    shape = pcm[positions[:, None] + around] >> FINGERPRINT_STEP_BITS
    hashes: Integers = shape.astype(np.int64) @ FINGERPRINT_WEIGHTS  # wraps round
    return hashes


class OracleEngine:
    """Known words at the price of real ones: an Engine over synthetic weights of a true shape.

    `model_folder` was written by `measure.synthetic.write_weights`, `references` is a folder for `known_recordings` or
    what it returns. One thread decodes one batch; `threads` batches run at once, each when called from a thread of its
    own. Raises ModelMissing where there are no synthetic weights.
    """

    name = "oracle"

    def __init__(
        self,
        model_folder: Path,
        references: Path | Sequence[Recording],
        *,
        threads: int = 1,
        min_window_s: float = 0.0,
    ) -> None:
        self._synthetic = read_synthetic(model_folder)
        self._known = KnownAudio(known_recordings(references) if isinstance(references, Path) else references)
        model = WhisperModel(str(model_folder), device="cpu", compute_type="int8", cpu_threads=1, num_workers=threads)
        self._whisper, self._features, self._tokenizer = model.model, model.feature_extractor, model.hf_tokenizer
        self.model = f"synthetic-{self._synthetic.size}"
        self.capabilities = Capabilities(batch=8, translate=True, min_window_s=min_window_s)

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        """The reference words in each window, probability 1; an unknown window has none, and costs what silence costs.

        Raises InvalidInput for a window longer than 30 s.
        """
        if not windows:
            return []
        heard = [self._known.find(window.pcm) for window in windows]
        most = min(MAX_TOKENS, len(self._synthetic.chain))
        n_tokens = [min(round(len(words) * TOKENS_PER_WORD), most) for words, _ in heard]
        said = self._pay(windows, n_tokens, options)
        return [
            Decoded(
                words,
                options.language or language,
                stats=DecodeStats(tokens, 0.0, 0.0 if words else 1.0, temperature=options.temperature),
            )
            for (words, language), tokens in zip(heard, said, strict=True)
        ]

    def _pay(self, windows: Sequence[Window], n_tokens: Sequence[int], options: DecodeOptions) -> list[int]:
        """Do all the work that a real decode of `n_tokens` in each window is; returns the tokens that were decoded."""
        encoded = self._whisper.encode(StorageView.from_array(self._mel([window.pcm for window in windows])))
        if options.language is None:
            self._whisper.detect_language(encoded)
        start = self._ids("<|startoftranscript|>", "<|en|>", f"<|{options.task}|>")  # all languages cost the same
        before = self._previous(windows, options.hotwords)
        results = self._whisper.generate(
            encoded,
            [
                [*text, *start, *self._ids("<|notimestamps|>"), *self._synthetic.prefix(n)]
                for text, n in zip(before, n_tokens, strict=True)
            ],
            beam_size=options.beam_size,
            sampling_temperature=options.temperature,
            max_length=N_POSITIONS,
            return_scores=True,
            return_no_speech_prob=True,
        )
        if any(n_tokens):
            frames = [max(2, len(window.pcm) // self._features.hop_length) for window in windows]  # 2: one position
            self._whisper.align(encoded, start, [self._synthetic.words(n) for n in n_tokens], frames)
        return [sum(token != self._synthetic.end for token in result.sequences_ids[0]) for result in results]

    def _mel(self, pcms: Sequence[Pcm]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Log-mel features [windows, 80, frames of 10 ms] of all `pcms`, zero-padded to the longest or the minimum."""
        longest = max(len(pcm) for pcm in pcms)
        if longest > samples(self.capabilities.max_window_s):
            raise InvalidInput(f"a window of {seconds(longest)} s is longer than {self.capabilities.max_window_s} s")
        length = max(longest, samples(self.capabilities.min_window_s), 2 * ENCODER_STEP)
        length += -length % ENCODER_STEP
        padded = (np.pad(as_float(pcm), (0, length - len(pcm))) for pcm in pcms)
        return np.stack([self._features(signal, padding=0) for signal in padded])

    def _previous(self, windows: Sequence[Window], hotwords: str) -> list[list[int]]:
        """The prompt tokens of each window, filled up in front: in one batch CTranslate2 takes only one length."""
        texts = [f"{hotwords} {window.prompt}".strip() for window in windows]
        tokens = [self._tokenizer.encode(f" {text}", add_special_tokens=False).ids if text else [] for text in texts]
        length = min(max(map(len, tokens)), MAX_PROMPT_TOKENS)
        filler = self._synthetic.chain[:1]
        rows = ([*filler * (length - len(row)), *row[max(0, len(row) - length) :]] for row in tokens)
        return [[*self._ids("<|startofprev|>"), *row] if length else [] for row in rows]

    def _ids(self, *tokens: str) -> list[int]:
        return [self._tokenizer.token_to_id(token) for token in tokens]
