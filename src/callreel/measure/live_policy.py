"""Live against offline on known audio, by window floor and cut rule, with session and policy on a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from callreel.audio.pcm import Pcm, samples, seconds
from callreel.audio.vad import Vad
from callreel.engines.base import Engine
from callreel.live.session import LiveOptions, Session
from callreel.text import Segment

CHUNK_S = 0.256  # what WhisperLive's client sends at a time


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One recording through a session: what was said, and when each word was certain."""

    segments: list[Segment]
    commit_delays_s: list[float]  # of each word: the moment it was committed minus the moment it had been said
    decodes: int
    decoded_audio_s: float


def run_live(pcm: Pcm, engine: Engine, options: LiveOptions, *, decode_s: float = 0.2) -> LiveRun:
    """Play `pcm` in real time on a virtual clock on which each decode takes `decode_s`; no audio is ever waited for."""
    session, vad = Session(options, track="main"), Vad()
    segments: list[Segment] = []
    delays: list[float] = []
    counted: dict[int, int] = {}
    decodes, decoded_audio_s = 0, 0.0
    busy_until = 0.0
    pending: tuple[object, object] | None = None
    work = None
    result = None

    def settle(now: float) -> None:
        nonlocal work, result
        if work is None or now < busy_until:
            return
        utterance = work.utterance
        known = len(utterance.agreement.committed)
        segments.extend(s for s in session.decoded(work, result) if s.completed)
        for word in utterance.agreement.committed[known:]:
            delays.append(max(0.0, busy_until - seconds(word.end)))
        work = None

    def start(now: float) -> None:
        nonlocal work, result, busy_until, decodes, decoded_audio_s
        if work is not None or session.wants() is None:
            return
        work = session.take()
        result = engine.decode([work.window], work.options)[0]
        busy_until = now + decode_s
        decodes += 1
        decoded_audio_s += seconds(len(work.window.pcm))

    for at in range(0, len(pcm), samples(CHUNK_S)):
        part = pcm[at : at + samples(CHUNK_S)]
        now = seconds(at + len(part))
        settle(now)
        session.feed(part, vad.feed(part))
        start(now)
    session.feed(np.zeros(0, np.int16), vad.feed(np.zeros(512, np.int16)))
    session.flush()
    now = max(seconds(len(pcm)), busy_until)
    while not session.idle:
        settle(now)
        start(now)
        now = max(now, busy_until)
    return LiveRun(segments, delays, decodes, decoded_audio_s)
