"""Engine and job processes that die in their work: others take their place, and the work is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from callreel.audio.pcm import Pcm
from callreel.engines import frames
from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.remote import AsyncRemoteEngine
from callreel.errors import InvalidInput
from callreel.measure.harness import ServerProcess, play, wait_for
from callreel.measure.wer import compare
from callreel.server.supervision import FIRST_PAUSE_S, EngineProcess
from tests.engines.fake_engines import NAME
from tests.server.helpers import (
    DEADLINE_S,
    SILENCE_1S,
    TOY_MODEL,
    caller,
    has_completed,
    is_gone,
    long_file,
    recording,
    running_child,
    says,
    served,
    talking,
    upload,
)

COPIES = 3
SAID = "julia can speak tomorrow evening"  # once in each copy


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of our own: its processes are killed."""
    with served(tmp_path_factory.mktemp("struck")) as server:
        yield server


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_file(tmp_path_factory.mktemp("media"), copies=COPIES)


def restarts(server: ServerProcess, role: str) -> float:
    line = f'engine_restarts_total{{role="{role}"}} '
    return float(next((row[len(line) :] for row in server.get("/metrics").splitlines() if row.startswith(line)), "0"))


@pytest.mark.slow
def test_a_live_engine_that_is_killed_costs_no_word(struck: ServerProcess, references: dict[str, Any]) -> None:
    before = restarts(struck, "live")
    pcm = recording("en_live_20s.flac")

    async def run() -> str:
        async with talking(struck) as talk:
            sending = asyncio.create_task(_paced(talk.send, pcm, 4))
            for _ in range(2):
                await talk.until(has_completed)
                child = struck.children()["live"]
                child.kill()
                await asyncio.to_thread(
                    wait_for,
                    lambda c=child: struck.children().get("live", c).pid != c.pid,
                    DEADLINE_S,
                    "another engine is there",
                )
            await sending
            await talk.end()
            await talk.until_closed()
            assert talk.connection.close_code == 1000
            assert struck.finished_call(talk.call_id)["state"] == "done"
            assert struck.text(talk.call_id) == talk.text
            return talk.text

    spoken = " ".join(u["text"] for u in references["en_live_20s.flac"]["tracks"]["mono"]["utterances"])
    text = asyncio.run(run())
    found = compare(spoken, text)
    assert found.deletions <= 2 and found.doubled == 0 and found.rate < 0.25  # the toy model alone has 0.15
    assert text.split()[0] == "thanks" and text.split()[-1] == "afternoon"
    assert restarts(struck, "live") == before + 2


async def _paced(send: Callable[[Pcm], Awaitable[None]], pcm: Pcm, pace: float) -> None:
    """Send a second of audio every 1/pace seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for i in range(0, len(pcm), len(SILENCE_1S)):
        await send(pcm[i : i + len(SILENCE_1S)])
        due: asyncio.Future[None] = loop.create_future()
        loop.call_at(began + (i / len(SILENCE_1S) + 1) / pace, due.set_result, None)
        await due


@pytest.mark.slow
def test_a_batch_engine_that_is_killed_costs_no_attempt(struck: ServerProcess, file: Path) -> None:
    with caller(struck) as api:
        job = upload(api, file)
        running_child(struck, job["id"])
        child = struck.children()["batch"]
        child.kill()
        done = struck.finished_job(job["id"])
        assert (done["state"], done["attempts"]) == ("succeeded", 1)
        assert struck.text(job["call_id"]).count(SAID) == COPIES
    assert restarts(struck, "batch") == 1


@pytest.mark.slow
def test_a_job_process_that_is_killed_is_tried_again(struck: ServerProcess, file: Path) -> None:
    with caller(struck) as api:
        job = upload(api, file)
        running_child(struck, job["id"]).kill()
        done = struck.finished_job(job["id"])
        assert (done["state"], done["attempts"], done["error"]) == ("succeeded", 2, None)
        assert struck.text(job["call_id"]).count(SAID) == COPIES
        call = api.get(f"/v1/calls/{job['call_id']}").json()
        assert call["state"] == "done" and len(call["transcripts"]) == 1


@pytest.mark.slow
def test_a_job_whose_process_dies_each_time_fails_with_the_reason(struck: ServerProcess, file: Path) -> None:
    with caller(struck) as api:
        job = upload(api, file)

        def attempt(number: int) -> bool:
            return int(api.get(f"/v1/jobs/{job['id']}").json()["attempts"]) == number and "job" in struck.children()

        for number in (1, 2, 3):
            wait_for(lambda n=number: attempt(n), DEADLINE_S, f"attempt {number} runs")
            struck.children()["job"].kill()
        failed = struck.finished_job(job["id"])
        assert (failed["state"], failed["attempts"], failed["error"]["code"]) == ("failed", 3, "job_died")
        assert failed["error"]["detail"]["exit_code"] == -9
        assert api.get(f"/v1/calls/{job['call_id']}").json()["state"] == "failed"
        wait_for(lambda: not list((struck.data / "work").iterdir()), 5.0, "its scratch folder is gone")


def test_a_socket_path_that_is_too_long_is_refused_with_what_to_do(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    with pytest.raises(InvalidInput) as refused:
        EngineProcess("batch", EngineSpec("whisper", str(TOY_MODEL), "models"), deep)
    assert "--data-dir" in refused.value.hint


def test_an_engine_that_ended_because_nobody_waited_starts_when_somebody_asks(tmp_path: Path) -> None:
    spec, path = EngineSpec(NAME, "any", "models"), tmp_path / "engine.sock"

    async def run() -> None:
        process = EngineProcess("batch", spec, path)
        await process.start()
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
            await frames.receive_async(reader)
            first = process.pid
            child = psutil.Process(first)
            work = Window(SILENCE_1S, prompt=f"wait {tmp_path / 'go'}")
            writer.write(frames.pack(frames.Request.of([work], DecodeOptions())))
            await asyncio.to_thread(wait_for, (tmp_path / "go.begun").exists, DEADLINE_S, "it decodes")
            writer.close()
            await asyncio.to_thread(wait_for, lambda: is_gone(child), DEADLINE_S, "it has given up")
            await asyncio.sleep(5 * FIRST_PAUSE_S)  # one that was to be started at once would be there
            assert process.pid == first
            engine = AsyncRemoteEngine(path)
            assert (await engine.hello()).name == "scripted" and process.pid != first
            engine.close()
        finally:
            await process.stop()

    asyncio.run(run())


def test_after_all_that_it_serves_as_before(struck: ServerProcess, toy_audio: Path) -> None:
    played = asyncio.run(play(struck.live_url, recording("en_short.wav"), pace=4))
    assert says(played.text, "hello please transfer my account")
    with caller(struck) as api:
        assert struck.finished_job(upload(api, toy_audio / "en_short.wav")["id"])["state"] == "succeeded"
    assert len(struck.children()) == 2
