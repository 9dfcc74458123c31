"""Live calls in the store: opened, finished, and taken up again from the log that a dead server left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from callreel.audio.pcm import Pcm, samples
from callreel.calls import store as calls
from callreel.errors import InvalidInput
from callreel.live.service import LiveService
from callreel.live.tracklog import TrackLog
from callreel.measure.harness import samples_of
from callreel.measure.wer import compare
from callreel.server.serve import start
from callreel.server.services import Services
from callreel.settings import Engines, Jobs, Settings
from callreel.text import Segment, text_of
from callreel.transcripts import store as transcripts

DEADLINE_S = 60.0


@asynccontextmanager
async def house(data: Path, model: Path) -> AsyncIterator[Services]:
    """Everything of a server but its sockets."""
    settings = Settings(
        data_dir=data,
        engine="whisper",
        model=str(model),
        engines=Engines(threads=2),
        jobs=Jobs(max_concurrent={"transcribe": 0}),
    )
    async with asyncio.timeout(DEADLINE_S), start(settings) as services:
        yield services


def write_log(root: Path, call_id: str, stream_id: str, pcm: Pcm) -> None:
    log = TrackLog(root, deliver=lambda call: call(), on_trouble=lambda _: None)
    log.open(call_id, stream_id, lambda offset, written: None)
    log.append(stream_id, pcm)
    assert log.close(stream_id).result(DEADLINE_S) == len(pcm)
    log.shutdown()


async def leave_open(
    services: Services, pcm: Pcm | None, segments: tuple[Segment, ...] = (), offset_s: float = 0.0
) -> calls.Stream:
    """A stream as a server that was killed leaves it: open, with a log, and with segments stored so far."""
    assert services.local_client is not None
    client = services.local_client

    def create(conn: Connection) -> calls.Stream:
        call = calls.create_call(conn, client_id=client, mode="realtime_only", state="live")
        calls.add_track(conn, call.id, "main")
        row = calls.open_stream(
            conn, call_id=call.id, track="main", protocol="whisperlive", options={"language": "en"}, offset_s=offset_s
        )
        transcript = transcripts.create_transcript(
            conn, call_id=call.id, pass_="live", engine="whisper", model="whisper-toy"
        )
        transcripts.put_segments(conn, transcript.id, segments)
        return row

    row = await services.database.write(create)
    if pcm is not None:
        await asyncio.to_thread(write_log, services.folder.live, row.call_id, row.id, pcm)
    return row


async def found(services: Services, call_id: str) -> tuple[calls.Call, transcripts.Transcript, list[Segment]]:
    assert services.local_client is not None
    client = services.local_client

    def read(conn: Connection) -> tuple[calls.Call, transcripts.Transcript, list[Segment]]:
        transcript = transcripts.live_transcript(conn, call_id)
        assert transcript is not None
        return calls.get_call(conn, call_id, client), transcript, transcripts.segments(conn, transcript.id)

    return await services.database.read(read)


async def recovered(live: LiveService) -> int:
    left = await live.left_open()
    await live.recover(left)
    return len(left)


@pytest.mark.slow
def test_streams_left_open_are_taken_up_whole_and_once(
    tmp_path: Path, toy_model: Path, toy_audio: Path, references: dict[str, Any]
) -> None:
    pcm = samples_of(toy_audio / "en_live_20s.flac")
    spoken = " ".join(u["text"] for u in references["en_live_20s.flac"]["tracks"]["mono"]["utterances"])

    async def run() -> None:
        async with house(tmp_path, toy_model) as services:
            live = services.live
            whole = await leave_open(services, pcm)
            assert await recovered(live) == 1
            call, transcript, segments = await found(services, whole.call_id)
            assert (call.state, call.duration_s) == ("done", pytest.approx(20.25, abs=0.01))
            assert transcript.state == "done" and [s.seq for s in segments] == list(range(len(segments)))
            assert compare(spoken, text_of(segments)).rate < 0.2
            assert {s.epoch for s in segments} == {2}

            # The same with the first utterances stored already: they stay as they are, the rest follows.
            kept = tuple(replace(s, epoch=1) for s in segments[: len(segments) // 2])
            late = await leave_open(services, pcm, kept)
            shifted = tuple(replace(s, start=s.start + 100, end=s.end + 100) for s in kept)
            moved = await leave_open(services, pcm, shifted, offset_s=100.0)
            empty = await leave_open(services, None)
            assert await recovered(live) == 3
            _, _, again = await found(services, late.call_id)
            assert tuple(again[: len(kept)]) == kept
            assert [s.seq for s in again] == list(range(len(again)))
            difference = compare(text_of(segments), text_of(again))
            assert difference.doubled == 0 and difference.errors <= 2
            call, _, placed = await found(services, moved.call_id)
            assert text_of(placed) == text_of(again) and placed[-1].end == pytest.approx(again[-1].end + 100)
            assert call.duration_s == pytest.approx(120.25, abs=0.01)
            call, _, nothing = await found(services, empty.call_id)
            assert (call.state, call.duration_s, nothing) == ("done", 0.0, [])

            assert await recovered(live) == 0  # and never again

    asyncio.run(run())


def test_a_stream_that_cannot_be_taken_up_keeps_no_other_waiting(
    tmp_path: Path, toy_model: Path, toy_audio: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with house(tmp_path, toy_model) as services:
            bad = await leave_open(services, None)
            await services.database.write(
                lambda conn: conn.exec_driver_sql("DELETE FROM transcript WHERE call_id = ?", (bad.call_id,))
            )
            good = await leave_open(services, samples_of(toy_audio / "en_short.wav"))
            assert await recovered(services.live) == 2
            assert text_of((await found(services, good.call_id))[2]) == "hello please transfer my account"
            assert [row.id for row in await services.live.left_open()] == [bad.id]  # nothing is thrown away

    asyncio.run(run())
    assert any("cannot be taken up" in record.message for record in caplog.records)


def test_streams_opened_after_the_look_are_left_alone(tmp_path: Path, toy_model: Path, toy_audio: Path) -> None:
    pcm = samples_of(toy_audio / "en_short.wav")

    async def run() -> None:
        async with house(tmp_path, toy_model) as services:
            live = services.live
            left = await live.left_open()
            assert services.local_client is not None
            opened = await live.open(
                client_id=services.local_client,
                protocol="whisperlive",
                options=replace(live.defaults, language="en"),
                external_id="x",
                track="main",
                on_segments=lambda segments: None,
            )
            await opened.stream.feed(pcm)
            await live.recover(left)
            call, _, _ = await found(services, opened.row.call_id)
            assert call.state == "live"
            await live.finish(opened)
            call, transcript, segments = await found(services, opened.row.call_id)
            assert (call.state, transcript.state, transcript.language) == ("done", "done", "en")
            assert text_of(segments) == "hello please transfer my account" and {s.epoch for s in segments} == {1}

            wrong = (replace(live.defaults, language="de"), "en, sw"), (replace(live.defaults, task="translate"), "")
            for options, hint in wrong:
                if options.task == "translate" and live.engine.capabilities.translate:
                    continue
                with pytest.raises(InvalidInput) as refused:
                    await live.open(
                        client_id=services.local_client,
                        protocol="whisperlive",
                        options=options,
                        external_id=None,
                        track="main",
                        on_segments=lambda segments: None,
                    )
                assert hint in refused.value.hint
            assert await live.left_open() == []

    asyncio.run(run())


def test_a_replay_is_short_of_no_memory(tmp_path: Path, toy_model: Path, toy_audio: Path) -> None:
    """A long log goes through the session in blocks: it never holds much more than a window of it."""
    pcm = samples_of(toy_audio / "en_long_50s.flac")
    most = 0

    async def run() -> None:
        nonlocal most
        async with house(tmp_path, toy_model) as services:
            await leave_open(services, pcm)
            recovery = asyncio.create_task(recovered(services.live))
            scheduler = services.live._scheduler
            while not recovery.done():
                for member in scheduler._members:
                    most = max(most, len(member.session._pcm) // 2)
                await asyncio.sleep(0.001)
            assert await recovery == 1

    asyncio.run(run())
    assert 0 < most < samples(30.0)
