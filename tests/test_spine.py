"""The whole way, through the real processes: each toy recording as a file and as a paced stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callreel.measure.harness import Played, ServerProcess, play, samples_of
from callreel.measure.wer import word_error_rate

PACE = 2.0  # times real time: what a partial decode gets to hear does not depend on it, only how often it comes
MEAN_WER = 0.08
MEAN_DIFFERENCE = 0.02
SILENT = ("noise_8s.flac", "silence_5s.flac")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, toy_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("spine"), "--engine", "whisper", "--model", str(toy_model)) as running:
        yield running


async def _play_all(server: ServerProcess, audio: Path, names: list[str]) -> list[Played]:
    return await asyncio.gather(*(play(server.live_url, samples_of(audio / name), pace=PACE) for name in names))


@pytest.mark.slow
def test_file_and_stream_say_the_same(server: ServerProcess, toy_audio: Path, references: dict[str, Any]) -> None:
    names = [name for name, facts in references.items() if list(facts["tracks"]) == ["mono"] and name not in SILENT]
    assert len(names) == 8
    played = asyncio.run(_play_all(server, toy_audio, names))
    live, offline = [], []
    for name, stream in zip(names, played, strict=True):
        said = references[name]["tracks"]["mono"]["text"]
        job = server.finished_job(server.transcribe(toy_audio / name)["id"])
        stored = server.text(server.call_of(stream.uid)["id"])
        assert stored == stream.text, name
        live.append(word_error_rate(said, stored))
        offline.append(word_error_rate(said, server.text(job["call_id"])))
    live_mean, offline_mean = sum(live) / len(live), sum(offline) / len(offline)
    assert live_mean <= MEAN_WER and offline_mean <= MEAN_WER, (live, offline)
    assert abs(live_mean - offline_mean) <= MEAN_DIFFERENCE, (live, offline)


def test_nothing_is_made_of_silence_and_noise(server: ServerProcess, toy_audio: Path) -> None:
    for stream in asyncio.run(_play_all(server, toy_audio, list(SILENT))):
        assert stream.text == "" and server.text(server.call_of(stream.uid)["id"]) == ""
    for name in SILENT:
        job = server.finished_job(server.transcribe(toy_audio / name)["id"])
        assert job["state"] == "succeeded" and server.text(job["call_id"]) == ""
