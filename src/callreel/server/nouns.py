"""The nouns of the API as it answers them: the store's rows, made whole, and nothing that is the server's own."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response

from callreel.calls.store import Call
from callreel.jobs import nouns
from callreel.jobs.store import Job
from callreel.storage.pages import Page
from callreel.transcripts.store import Transcript


def call_noun(call: Call, transcripts: list[Transcript] | None = None) -> dict[str, Any]:
    noun: dict[str, Any] = msgspec.to_builtins(call)
    del noun["client_id"]
    for track in noun["tracks"]:
        del track["call_id"]
    if transcripts is not None:
        noun["transcripts"] = [transcript_noun(transcript) for transcript in transcripts]
    noun["links"] = {
        "transcript": f"/v1/calls/{call.id}/transcript",
        "events": f"/v1/calls/{call.id}/events",
    }
    return noun


def transcript_noun(transcript: Transcript) -> dict[str, Any]:
    noun: dict[str, Any] = msgspec.to_builtins(transcript)
    noun["pass"] = noun.pop("pass_")
    return noun


def job_noun(job: Job) -> dict[str, Any]:
    return nouns.job_noun(msgspec.to_builtins(job))


def page_noun(page: Page[Any], data: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": data, "next": page.next}


def json_page(page: Page[Any], data: list[dict[str, Any]]) -> Response:
    """A page, written where it was read: a thousand nouns take milliseconds, which the event loop has not."""
    return Response(msgspec.json.encode(page_noun(page, data)), media_type="application/json")
