"""A call written down: formats, their options, which transcript counts, edits, search."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess
from callreel.server.routes.transcripts import disposition
from callreel.transcripts.formats import FORMATS
from tests.server.helpers import caller, upload
from tests.server.test_events import watch


@pytest.fixture(scope="module")
def call_id(server: ServerProcess, toy_audio: Path) -> str:
    with caller(server) as api:
        job = server.finished_job(upload(api, toy_audio / "en_live_20s.flac")["id"])
    return str(job["call_id"])


@pytest.fixture
def segment(api: httpx.Client, call_id: str) -> Iterator[dict[str, Any]]:
    """The call's first segment, unedited before and after."""
    first: dict[str, Any] = api.get(f"/v1/calls/{call_id}/transcript").json()["segments"][0]
    yield first
    api.delete(f"/v1/calls/{call_id}/segments/{first['id']}")


def path_of(call_id: str, segment: dict[str, Any]) -> str:
    return f"/v1/calls/{call_id}/segments/{segment['id']}"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_comes_with_its_type_and_a_name(api: httpx.Client, call_id: str, name: str) -> None:
    answer = api.get(f"/v1/calls/{call_id}/transcript", params={"format": name, "download": True})
    assert answer.status_code == 200 and answer.headers["content-type"] == FORMATS[name].media_type
    assert f'attachment; filename="en_live_20s.{FORMATS[name].extension}"' in answer.headers["content-disposition"]


def test_options_reach_the_format(api: httpx.Client, call_id: str) -> None:
    path = f"/v1/calls/{call_id}/transcript"
    narrow = api.get(path, params={"format": "srt", "max_line_chars": 12, "max_lines": 1}).text
    said = [line for line in narrow.splitlines() if line and not line[0].isdigit()]
    assert said and max(map(len, said)) <= 12
    assert len(narrow) > len(api.get(path, params={"format": "srt"}).text)
    for wrong in ({"max_line_chars": 0}, {"min_cue_s": 5, "max_cue_s": 2}, {"speakers": "perhaps"}):
        refused = api.get(path, params={"format": "srt", **wrong})
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("call one.wav", "call one.srt"),
        ("../..", "transcript.srt"),
        ('a"b\r\nX: y/..\\c', "a_b_X_ y_.._c.srt"),
        ("", "transcript.srt"),
        ("Mr. Smith calls", "Mr. Smith calls.srt"),
        ("x" * 300, "x" * 100 + ".srt"),
    ],
)
def test_a_title_makes_a_safe_name(title: str, name: str) -> None:
    assert disposition(title, "srt", attach=False).startswith(f'inline; filename="{name}"; ')


def test_a_name_that_is_not_ascii_comes_whole_too() -> None:
    assert disposition("Gespräch.wav", "txt", attach=True) == (
        "attachment; filename=\"Gespr_ch.txt\"; filename*=UTF-8''Gespr%C3%A4ch.txt"
    )


def test_the_transcripts_of_a_call_and_one_of_them(api: httpx.Client, call_id: str) -> None:
    (found,) = api.get(f"/v1/calls/{call_id}/transcripts").json()["data"]
    assert found["pass"] == "final" and found["current"]
    path = f"/v1/calls/{call_id}/transcript"
    by_id = api.get(path, params={"transcript_id": found["id"]}).json()
    assert by_id["transcript"] == found["id"] == api.get(path, params={"pass": "final"}).json()["transcript"]
    for none in ({"pass": "live"}, {"transcript_id": "none"}):
        assert api.get(path, params=none).status_code == 404
    assert api.post(f"/v1/calls/{call_id}/transcripts/{found['id']}/accept").json()["current"]
    assert api.post(f"/v1/calls/{call_id}/transcripts/none/accept").status_code == 404


def test_an_edit_keeps_times_and_what_the_engine_wrote(
    api: httpx.Client, call_id: str, segment: dict[str, Any]
) -> None:
    path = path_of(call_id, segment)
    changed = api.patch(path, json={"text": "quite something else", "speaker": "agent"}).json()
    assert changed["text"] == "quite something else" and changed["edited"] and changed["speaker"] == "agent"
    assert (changed["start"], changed["end"]) == (segment["start"], segment["end"])
    assert api.get(path).json() == changed
    assert api.get(path, params={"edited": False}).json() == segment
    document = api.get(f"/v1/calls/{call_id}/transcript")
    assert document.json()["segments"][0] == changed and "quite something else" in document.json()["text"]
    machine = api.get(f"/v1/calls/{call_id}/transcript", params={"edited": False}).json()
    assert machine["segments"][0] == segment
    assert api.patch(path, json={"speaker": None}).json()["text"] == "quite something else"  # what is not given stays
    assert api.delete(path).json() == segment == api.get(path).json()
    assert api.delete(path).json() == segment  # twice is harmless


def test_an_edit_is_searched_and_found_where_it_was_said(
    api: httpx.Client, call_id: str, segment: dict[str, Any]
) -> None:
    assert api.get("/v1/search", params={"q": "zanzibar"}).json() == {"data": [], "next": None}
    api.patch(path_of(call_id, segment), json={"text": f"{segment['text']} Zanzibar"})
    (moment,) = api.get("/v1/search", params={"q": "zanz*", "call_id": call_id}).json()["data"]
    assert (moment["call_id"], moment["segment_id"]) == (call_id, segment["id"])
    ((begin, end),) = moment["matches"]
    assert moment["snippet"][begin:end] == "Zanzibar" and segment["start"] <= moment["start"] <= segment["end"]


@pytest.mark.parametrize("query", [{}, {"q": ""}, {"q": "..."}, {"q": "x" * 501}, {"q": "a", "limit": 0}])
def test_what_cannot_be_searched_is_refused(api: httpx.Client, query: dict[str, Any]) -> None:
    refused = api.get("/v1/search", params=query)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "invalid_input"


@pytest.mark.parametrize(
    "change",
    [{}, {"text": "x" * 5001}, {"start": 1.0}, {"text": None}, {"text": 5}, {"speaker": "x" * 201}, [], "text"],
)
def test_what_is_no_edit_is_refused(api: httpx.Client, call_id: str, segment: dict[str, Any], change: Any) -> None:
    refused = api.patch(path_of(call_id, segment), json=change)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "invalid_input"
    assert api.get(path_of(call_id, segment)).json() == segment


def test_a_lone_surrogate_is_refused(api: httpx.Client, call_id: str, segment: dict[str, Any]) -> None:
    refused = api.patch(
        path_of(call_id, segment), content=rb'{"text": "\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 400


def test_a_segment_is_found_under_its_own_call_only(
    server: ServerProcess, api: httpx.Client, call_id: str, segment: dict[str, Any], toy_audio: Path
) -> None:
    other = server.finished_job(upload(api, toy_audio / "en_short.wav")["id"])["call_id"]
    for path in (path_of(other, segment), path_of(call_id, {"id": "none"}), path_of(call_id, {"id": "a:b:c"})):
        for answer in (api.get(path), api.patch(path, json={"text": "x"}), api.delete(path)):
            assert answer.status_code == 404, path


def test_watchers_hear_of_an_edit_and_of_its_end(
    server: ServerProcess, api: httpx.Client, call_id: str, segment: dict[str, Any]
) -> None:
    count = len(api.get(f"/v1/calls/{call_id}/transcript").json()["segments"])

    async def run() -> list[tuple[str, bool]]:
        heard = []
        async for told in watch(server, call_id):
            heard.append((told.data["text"], told.data["edited"]))
            if len(heard) == count:  # all that was stored
                await asyncio.to_thread(api.patch, path_of(call_id, segment), json={"text": "edited now"})
                await asyncio.to_thread(api.delete, path_of(call_id, segment))
            if len(heard) == count + 2:
                break
        return heard[count:]

    assert asyncio.run(run()) == [("edited now", True), (segment["text"], False)]
