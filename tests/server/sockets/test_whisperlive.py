"""WhisperLive's protocol on a real socket: well-behaved clients, slow ones, broken ones."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Connection
from websockets.asyncio.client import connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.http11 import Request

from callreel.audio.pcm import samples
from callreel.calls import store as calls
from callreel.measure.harness import ServerProcess, play, wait_for
from callreel.server.serve import start
from callreel.server.sockets import whisperlive
from callreel.server.sockets.whisperlive import OPTIONS_WITHIN_S, key_of
from callreel.settings import Jobs, Settings
from callreel.text import text_of
from callreel.transcripts import store as transcripts
from callreel.wire.whisperlive import MAX_FRAME_BYTES
from tests.server.helpers import (
    DEADLINE_S,
    SILENCE_1S,
    STALL_S,
    TOY_MODEL,
    Talk,
    accepted_samples,
    caller,
    connected,
    has_completed,
    options,
    recording,
    says,
    talking,
)


@pytest.fixture(scope="module")
def silence(server: ServerProcess) -> Iterator[Future[tuple[list[dict[str, Any]], int | None]]]:
    """A connection that says nothing, from the module's first test on: what it hears, and its close code."""

    async def wait() -> tuple[list[dict[str, Any]], int | None]:
        async with connected(server) as talk:
            return await talk.until_closed(), talk.connection.close_code

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(asyncio.run, wait())


@pytest.fixture
def spoken(references: dict[str, Any]) -> dict[str, str]:
    return {name: " ".join(t["text"] for t in r["tracks"].values()) for name, r in references.items()}


def stored_text(server: ServerProcess, call_id: str) -> str:
    assert server.finished_call(call_id)["state"] == "done"
    return server.text(call_id)


# -- the way of a whole stream


def test_ready_first_then_language_once_then_segments_then_a_clean_close(
    server: ServerProcess, silence: object, spoken: dict[str, str]
) -> None:
    async def run() -> Talk:
        async with talking(server, language=None, word_timestamps=True) as talk:
            await talk.send(recording("en_two_speakers.flac"))
            await talk.end()
            await talk.until_closed()
            return talk

    talk = asyncio.run(run())
    assert talk.connection.close_code == 1000
    first = talk.said[0]
    assert first == {"uid": "test", "message": "SERVER_READY", "backend": "faster_whisper", "call_id": talk.call_id}
    languages = [message for message in talk.said if "language" in message]
    assert len(languages) == 1 and languages[0]["language"] == "en" and 0 < languages[0]["language_prob"] <= 1
    assert talk.said.index(languages[0]) < next(i for i, m in enumerate(talk.said) if has_completed(m))
    assert says(talk.text, spoken["en_two_speakers.flac"]) and talk.text == stored_text(server, talk.call_id)
    words = [word["word"].strip() for segment in talk.completed for word in segment["words"]]
    assert words == talk.text.split()
    call = server.get(f"/v1/calls/{talk.call_id}")
    assert call["duration_s"] == pytest.approx(8.43, abs=0.01) and call["external_id"] == "test"
    assert [(t["pass"], t["state"], t["current"]) for t in call["transcripts"]] == [("live", "done", True)]


def test_what_was_completed_never_changes_and_times_only_rise(server: ServerProcess) -> None:
    played = asyncio.run(play(server.live_url, recording("en_live_20s.flac"), pace=4))
    lists = [message["segments"] for _, message in played.received if "segments" in message]
    assert any(not segments[-1]["completed"] for segments in lists)
    kept: list[dict[str, Any]] = []
    for segments in lists:
        completed = [segment for segment in segments if segment["completed"]]
        assert completed[: len(kept)] == kept and all(s["completed"] for s in segments[:-1])
        kept = completed
        times = [float(segment[name]) for segment in segments for name in ("start", "end")]
        assert times == sorted(times)
    assert len(kept) >= 6


def test_bytes_may_be_split_anywhere(server: ServerProcess, spoken: dict[str, str]) -> None:
    async def run(frame_bytes: int, audio_format: str) -> Talk:
        async with talking(server, audio_format=audio_format) as talk:
            pcm = recording("en_short.wav")
            sound = pcm if audio_format == "int16" else pcm.astype("<f4") / 32768
            await talk.send(sound, frame_bytes)  # type: ignore[arg-type]
            await talk.end()
            await talk.until_closed()
            return talk

    for frame_bytes, audio_format in ((333, "int16"), (4097, "float32"), (MAX_FRAME_BYTES, "float32")):
        assert asyncio.run(run(frame_bytes, audio_format)).text == spoken["en_short.wav"]


def test_the_end_completes_what_is_left_however_early(server: ServerProcess) -> None:
    async def run(pcm_s: float) -> Talk:
        async with talking(server) as talk:
            await talk.send(recording("en_short.wav")[: samples(pcm_s)])
            await talk.end()
            await talk.until_closed()
            return talk

    nothing, middle = asyncio.run(run(0.0)), asyncio.run(run(1.8))
    assert nothing.connection.close_code == middle.connection.close_code == 1000
    assert nothing.completed == [] and server.finished_call(nothing.call_id)["duration_s"] == 0
    assert middle.text.startswith("hello please transfer")


@pytest.mark.slow
def test_eight_streams_at_once(server: ServerProcess, spoken: dict[str, str]) -> None:
    names = ["en_short.wav", "en_two_speakers.flac"] * 4

    async def run() -> list[str]:
        played = await asyncio.gather(*(play(server.live_url, recording(n), pace=2, language="en") for n in names))
        assert not any(p.broke_off for p in played)
        return [p.text for p in played]

    for name, text in zip(names, asyncio.run(run()), strict=True):
        assert says(text, spoken[name])
    metrics = server.get("/metrics")
    assert "\nlive_streams 0.0\n" in metrics


# -- without a proper end


def test_a_hang_up_keeps_the_whole_transcript(server: ServerProcess, spoken: dict[str, str]) -> None:
    async def run() -> str:
        async with talking(server) as talk:
            await talk.send(recording("en_two_speakers.flac"))
            await talk.connection.close()
            return talk.call_id

    assert says(stored_text(server, asyncio.run(run())), spoken["en_two_speakers.flac"])


def test_a_connection_that_breaks_keeps_what_was_accepted(server: ServerProcess, spoken: dict[str, str]) -> None:
    pcm = recording("en_two_speakers.flac")

    async def run() -> str:
        async with talking(server) as talk:
            await talk.send(pcm)
            await asyncio.to_thread(
                wait_for, lambda: accepted_samples(server, talk.call_id) == len(pcm), DEADLINE_S, "all is accepted"
            )
            talk.connection.transport.abort()
            return talk.call_id

    assert says(stored_text(server, asyncio.run(run())), spoken["en_two_speakers.flac"])


@pytest.mark.parametrize("controls", [False, True], ids=["silent", "while controls come"])
def test_a_stall_completes_what_was_said_and_the_stream_goes_on(
    server: ServerProcess, spoken: dict[str, str], controls: bool
) -> None:
    pcm, cut = recording("en_digits.flac"), samples(4.45)  # the last word has just been said

    async def chatter(talk: Talk) -> None:
        while True:
            await talk.connection.send(json.dumps({"type": "speaker_activity", "payload": {}}))
            await asyncio.sleep(STALL_S / 4)

    async def run() -> tuple[str, Talk]:
        async with talking(server) as talk:
            await talk.send(pcm[:cut])
            chattering = asyncio.create_task(chatter(talk)) if controls else None
            await talk.until(has_completed)
            if chattering:
                chattering.cancel()
            before = talk.text
            await talk.send(pcm[cut:])
            await talk.end()
            await talk.until_closed()
            return before, talk

    before, talk = asyncio.run(run())
    assert says(before, "my phone number is nine four seven one zero three eight two")
    assert says(talk.text, spoken["en_digits.flac"]) and talk.text == stored_text(server, talk.call_id)


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_up_nobody(server: ServerProcess, spoken: dict[str, str]) -> None:
    async def run() -> tuple[Talk, list[str], str]:
        small = socket.create_connection(("127.0.0.1", server.live_port))
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with talking(
            server, how={"sock": small, "max_queue": 1}, word_timestamps=True, send_last_n_segments=1000
        ) as deaf:
            await deaf.send(recording("en_long_50s.flac"))
            others = await asyncio.gather(*(play(server.live_url, recording("en_short.wav"), pace=2) for _ in range(3)))
            stored = await asyncio.to_thread(server.get, f"/v1/calls/{deaf.call_id}/transcript")
            await deaf.end()
            await deaf.until_closed()  # it reads at last, and gets everything
            return deaf, [p.text for p in others], stored["text"]

    deaf, others, stored = asyncio.run(run())
    assert others == [spoken["en_short.wav"]] * 3
    assert "anna need help" in stored
    assert deaf.text == stored_text(server, deaf.call_id) and len(deaf.completed) >= 15


# -- what cannot be understood


def error_said(said: list[dict[str, Any]]) -> str:
    (message,) = (message["message"] for message in said if message.get("status") == "ERROR")
    return str(message)


@pytest.mark.parametrize(
    ("first", "complaint"),
    [
        ("hello", "not a JSON object"),
        (b"\x00\x01\x02\x03", "not a JSON object"),
        (json.dumps({"uid": "x"}), "lack task and model"),
        (json.dumps(options(task="sing")), "An option cannot be understood"),
        (json.dumps(options(audio_format="mp3")), "An option cannot be understood"),
        (json.dumps(options(language="de")), "no language 'de'"),
    ],
)
def test_options_that_cannot_be_taken_are_answered_with_what_may_be(
    server: ServerProcess, first: str | bytes, complaint: str
) -> None:
    async def run() -> Talk:
        async with connected(server) as talk:
            await talk.connection.send(first)
            await talk.until_closed()
            return talk

    talk = asyncio.run(run())
    assert len(talk.said) == 1 and complaint in error_said(talk.said)
    assert talk.connection.close_code == 1000


def test_garbage_frames_end_the_stream_with_a_reason_and_keep_what_was_said(
    server: ServerProcess, spoken: dict[str, str]
) -> None:
    async def run(garbage: str | bytes) -> Talk:
        async with talking(server) as talk:
            await talk.send(recording("en_short.wav"))
            await talk.connection.send(garbage)
            await talk.until_closed()
            return talk

    talk = asyncio.run(run("{]"))
    assert "neither a control nor END_OF_AUDIO" in error_said(talk.said)
    assert talk.text == spoken["en_short.wav"] == stored_text(server, talk.call_id)


def test_a_frame_over_the_limit_closes_with_1009_and_keeps_what_was_said(
    server: ServerProcess, spoken: dict[str, str]
) -> None:
    async def run() -> tuple[Talk, int]:
        async with talking(server) as talk:
            await talk.send(recording("en_short.wav"))
            with pytest.raises(ConnectionClosedError) as closed:
                await talk.connection.send(bytes(MAX_FRAME_BYTES + 1))
                await talk.until(lambda _: False)
            assert closed.value.rcvd is not None
            return talk, closed.value.rcvd.code

    talk, code = asyncio.run(run())
    assert code == 1009
    assert stored_text(server, talk.call_id) == spoken["en_short.wav"]


def test_noise_of_any_bytes_does_no_harm(server: ServerProcess, spoken: dict[str, str]) -> None:
    rng = random.Random(1)

    async def run(audio_format: str) -> Talk:
        async with talking(server, audio_format=audio_format, language=None) as talk:
            for _ in range(40):
                await talk.connection.send(rng.randbytes(rng.randrange(1, 9000)))
            await talk.end()
            await talk.until_closed()
            return talk

    for audio_format in ("float32", "int16", "uint8"):
        assert asyncio.run(run(audio_format)).connection.close_code == 1000
    assert asyncio.run(play(server.live_url, recording("en_short.wav"), pace=4)).text == spoken["en_short.wav"]


# -- who may in


def test_a_wrong_key_is_refused_wherever_it_stands(server: ServerProcess) -> None:
    places: list[tuple[str, dict[str, Any]]] = [
        ("", {"additional_headers": {"Authorization": "Bearer cr_wrong"}}),
        ("/?token=cr_wrong", {}),
        ("", {"subprotocols": ["bearer", "cr_wrong"]}),
    ]

    async def run(url: str, how: dict[str, Any]) -> int:
        with pytest.raises(InvalidStatus) as refused:
            async with connected(server, url, **how):
                pass
        assert b"Authorization: Bearer KEY" in refused.value.response.body
        return refused.value.response.status_code

    assert [asyncio.run(run(url, how)) for url, how in places] == [401] * 3


def test_the_right_key_opens_wherever_it_stands(guarded: ServerProcess, client_keys: dict[str, str]) -> None:
    key = client_keys["ann"]
    places: list[tuple[str, dict[str, Any]]] = [
        ("", {"additional_headers": {"Authorization": f"Bearer {key}"}}),
        (f"/?token={key}", {}),
        ("", {"subprotocols": ["bearer", key]}),
    ]

    async def run(url: str, how: dict[str, Any]) -> tuple[str, str | None]:
        async with talking(guarded, url, how) as talk:
            await talk.end()
            await talk.until_closed()
            return talk.call_id, talk.connection.subprotocol

    with caller(guarded, key) as ann, caller(guarded, client_keys["bob"]) as bob:
        for url, how in places:
            call_id, subprotocol = asyncio.run(run(url, how))
            assert subprotocol == ("bearer" if "subprotocols" in how else None)
            assert ann.get(f"/v1/calls/{call_id}").status_code == 200
            assert bob.get(f"/v1/calls/{call_id}").status_code == 404


@pytest.mark.parametrize(
    ("path", "headers", "key"),
    [
        ("/", [], None),
        ("/", [("Authorization", "Bearer k")], "k"),
        ("/", [("Authorization", "Basic k")], None),
        ("/", [("Authorization", "Bearer k"), ("Authorization", "Bearer j")], "k, Bearer j"),
        ("/?token=k", [], "k"),
        ("/?token=", [], None),
        ("/?a=1&token=k%2B", [], "k+"),
        ("/", [("Sec-WebSocket-Protocol", "bearer, k")], "k"),
        ("/", [("Sec-WebSocket-Protocol", "bearer"), ("Sec-WebSocket-Protocol", "k")], "k"),
        ("/", [("Sec-WebSocket-Protocol", "bearer")], None),
        ("/", [("Sec-WebSocket-Protocol", "other, k")], None),
    ],
)
def test_a_key_is_found_where_clients_put_it(path: str, headers: list[tuple[str, str]], key: str | None) -> None:
    assert key_of(Request(path, Headers(headers))) == key


# -- the last one: it was opened before all others


def test_a_connection_that_says_nothing_gives_its_place_back(
    silence: Future[tuple[list[dict[str, Any]], int | None]], server: ServerProcess
) -> None:
    said, code = silence.result(OPTIONS_WITHIN_S + DEADLINE_S)
    assert "No options came within 10 s" in error_said(said) and code == 1000


def test_a_stream_without_speech_stays_open_and_says_nothing(server: ServerProcess) -> None:
    async def run() -> Talk:
        async with talking(server) as talk:
            await talk.send(SILENCE_1S)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3 * STALL_S):
                    await talk.until(lambda _: True)
            await talk.end()
            await talk.until_closed()
            return talk

    talk = asyncio.run(run())
    assert talk.completed == [] and server.finished_call(talk.call_id)["duration_s"] == 1.0
    assert talk.connection.close_code == 1000


# -- when the server stops


def test_an_engine_that_hangs_does_not_keep_the_server_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoken: dict[str, str]
) -> None:
    monkeypatch.setattr(whisperlive, "FINISH_WITHIN_S", 0.3)
    settings = Settings(
        data_dir=tmp_path, engine="whisper", model=str(TOY_MODEL), jobs=Jobs(max_concurrent={"transcribe": 0})
    )
    pcm = recording("en_two_speakers.flac")

    async def stopped() -> str:
        loop = asyncio.get_running_loop()
        async with start(settings) as services:
            async with whisperlive.listen(services, "127.0.0.1", 0) as live:
                url = f"ws://127.0.0.1:{live.sockets[0].getsockname()[1]}"
                connection = await connect(url, compression=None)
                talk = Talk(connection)
                await connection.send(json.dumps(options()))
                await talk.until(lambda message: message.get("message") == "SERVER_READY")
                for child in psutil.Process().children():
                    if "callreel.engines.process" in child.cmdline():
                        child.suspend()
                await talk.send(pcm)
                log = tmp_path / "live" / talk.call_id
                await asyncio.to_thread(
                    wait_for, lambda: sum(f.stat().st_size for f in log.rglob("*.s16")) == pcm.nbytes, DEADLINE_S, "all"
                )
                began = loop.time()
            assert loop.time() - began < 2.0
        return talk.call_id

    async def taken_up(call_id: str) -> tuple[str, str]:
        async with start(settings) as services:
            await services.live.recover(await services.live.left_open())
            client = await services.client_of(None)

            def read(conn: Connection) -> tuple[str, str]:
                transcript = transcripts.live_transcript(conn, call_id)
                assert transcript is not None
                return calls.get_call(conn, call_id, client).state, text_of(transcripts.segments(conn, transcript.id))

            return await services.database.read(read)

    state, text = asyncio.run(taken_up(asyncio.run(stopped())))
    assert state == "done" and says(text, spoken["en_two_speakers.flac"])
