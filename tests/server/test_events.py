"""/v1/calls/{id}/events: what is stored, then what happens, and on from where a watcher stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, play, wait_for
from tests.server.helpers import DEADLINE_S, recording, upload


@dataclass(frozen=True)
class Told:
    """One server-sent event; `id` is None where the stream set none."""

    id: int | None
    type: str
    data: dict[str, Any]


async def watch(server: ServerProcess, call_id: str, after: int | None = None) -> AsyncIterator[Told]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    url = f"http://127.0.0.1:{server.port}/v1/calls/{call_id}/events"
    async with (
        asyncio.timeout(DEADLINE_S),
        httpx.AsyncClient(timeout=DEADLINE_S) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                body = json.loads(fields["data"])
                assert body["type"] == fields["event"] and body["id"] == (int(fields["id"]) if "id" in fields else None)
                yield Told(body["id"], body["type"], body["data"])
                fields = {}


def is_end(told: Told) -> bool:
    return told.type == "call" and told.data["state"] in ("done", "failed")


async def until_end(server: ServerProcess, call_id: str, after: int | None = None) -> list[Told]:
    seen = []
    async for told in watch(server, call_id, after):
        seen.append(told)
        if is_end(told):
            break
    return seen


async def in_pieces(server: ServerProcess, call_id: str, piece: int) -> list[Told]:
    """As `until_end`, by a watcher that hangs up after every `piece` events and comes back."""
    seen: list[Told] = []
    after: int | None = None
    while not (seen and is_end(seen[-1])):
        new = 0
        async for told in watch(server, call_id, after):
            seen.append(told)
            new += 1
            after = told.id or after
            if is_end(told) or (new >= piece and after is not None):
                break
    return seen


def final(events: list[Told]) -> list[tuple[str, str]]:
    return [(e.data["id"], e.data["text"]) for e in events if e.type == "segment" and e.data["completed"]]


@pytest.mark.slow
def test_watchers_of_a_live_call_miss_nothing_and_see_nothing_twice(server: ServerProcess) -> None:
    async def run() -> tuple[str, list[Told], list[Told], list[Told]]:
        talk = asyncio.create_task(play(server.live_url, recording("en_live_20s.flac"), uid="watched", pace=4))
        call_id = await asyncio.to_thread(_stored_call, server, "watched", 1)
        early = asyncio.create_task(until_end(server, call_id))
        pieces = asyncio.create_task(in_pieces(server, call_id, 2))
        await asyncio.to_thread(_stored_call, server, "watched", 3)
        late = await until_end(server, call_id)
        await talk
        return call_id, await early, await pieces, late

    call_id, early, pieces, late = asyncio.run(run())
    document = server.get(f"/v1/calls/{call_id}/transcript")
    stored = [(segment["id"], segment["text"]) for segment in document["segments"]]
    assert len(stored) >= 6
    for seen in (early, pieces, late):
        assert final(seen) == stored
        ids = [told.id for told in seen if told.id is not None]
        assert ids == sorted(set(ids))
    assert any(e.type == "segment" and not e.data["completed"] for e in early)  # partials are told as well
    # Two that watched the same time saw the same, however often one of them hung up.
    first = max(next(e.id for e in seen if e.id is not None) for seen in (early, pieces))
    assert [e for e in early if (e.id or 0) > first] == [e for e in pieces if (e.id or 0) > first]


def _stored_call(server: ServerProcess, uid: str, at_least: int) -> str:
    def found() -> str | None:
        calls = server.get(f"/v1/calls?external_id={uid}")["data"]
        if not calls:
            return None
        document = server.get(f"/v1/calls/{calls[0]['id']}/transcript")
        return str(calls[0]["id"]) if len(document["segments"]) >= at_least else None

    call_id: str = wait_for(found, DEADLINE_S, f"{at_least} segments are stored")
    return call_id


def test_a_watcher_of_a_file_hears_of_its_job_and_its_call(
    server: ServerProcess, api: httpx.Client, toy_audio: Path
) -> None:
    job = upload(api, toy_audio / "en_digits.flac")
    seen = asyncio.run(until_end(server, job["call_id"]))
    states = [e.data["state"] for e in seen if e.type == "job"]
    assert states[-1] == "succeeded" and "running" in states
    assert seen[-1].data == {"id": job["call_id"], "state": "done"}


def test_a_watcher_hears_of_a_cancellation(server: ServerProcess, api: httpx.Client, toy_audio: Path) -> None:
    job = upload(api, toy_audio / "en_long_50s.flac")

    async def run() -> list[Told]:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(until_end(server, job["call_id"]))
            async for _ in watch(server, job["call_id"]):  # the watcher is there, or will be told the end at once
                break
            await asyncio.to_thread(api.post, f"/v1/jobs/{job['id']}/cancel")
        return watching.result()

    seen = asyncio.run(run())
    assert [e.data["state"] for e in seen if e.type == "job"][-1] == "cancelled" and seen[-1].data["state"] == "failed"


def test_an_id_that_was_never_given_brings_what_is_stored(
    server: ServerProcess, api: httpx.Client, toy_audio: Path
) -> None:
    job = server.finished_job(upload(api, toy_audio / "en_digits.flac")["id"])
    stored = server.get(f"/v1/calls/{job['call_id']}/transcript")["segments"]

    async def first(after: int | None) -> list[Told]:
        seen: list[Told] = []
        async for told in watch(server, job["call_id"], after):
            seen.append(told)
            if len(seen) == len(stored):
                break
        return seen

    for after in (None, 7, 2**62):
        seen = asyncio.run(first(after))
        assert [told.data["id"] for told in seen] == [segment["id"] for segment in stored]
        assert [told.id is not None for told in seen] == [False] * (len(seen) - 1) + [True]
