"""/v1/calls/{id}/transcript and /transcripts: a call written down, in every format, and which writing counts."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy import Connection

from callreel.calls import store as calls
from callreel.errors import NotFound
from callreel.server.nouns import transcript_noun
from callreel.server.services import Client, House
from callreel.text import Segment
from callreel.transcripts import store as transcripts
from callreel.transcripts.formats import FormatOptions, format_named
from callreel.transcripts.formats.base import DEFAULTS

router = APIRouter(prefix="/v1/calls", tags=["transcripts"])

UNSAFE = re.compile(r"[^\w .()+-]+")
NAME_LENGTH = 100


def _options(
    max_line_chars: Annotated[int, Query(ge=1, le=1000, description="Subtitles: columns a line")] = (
        DEFAULTS.max_line_chars
    ),
    max_lines: Annotated[int, Query(ge=1, le=100, description="Subtitles: lines a cue")] = DEFAULTS.max_lines,
    min_cue_s: Annotated[float, Query(ge=0, le=60, description="Subtitles: a cue is shown so long at least")] = (
        DEFAULTS.min_cue_s
    ),
    max_cue_s: Annotated[float, Query(gt=0, le=600, description="Subtitles: and so long at most")] = DEFAULTS.max_cue_s,
    speakers: Annotated[bool, Query(description="Name who speaks, where that is known")] = DEFAULTS.speakers,
    timestamps: Annotated[bool, Query(description="txt, md, docx: the time before each paragraph")] = (
        DEFAULTS.timestamps
    ),
) -> FormatOptions:
    return FormatOptions(max_line_chars, max_lines, min_cue_s, max_cue_s, speakers, timestamps)


@router.get("/{call_id}/transcript")
async def transcript(
    house: House,
    client: Client,
    call_id: str,
    options: Annotated[FormatOptions, Depends(_options)],
    format: Annotated[str, Query(description="txt, srt, vtt, json, tsv, md or docx")] = "json",
    pass_: Annotated[
        Literal["live", "final"] | None,
        Query(alias="pass", description="The newest of this pass, instead of the one that counts"),
    ] = None,
    transcript_id: Annotated[str | None, Query(description="This one, instead of the one that counts")] = None,
    edited: Annotated[bool, Query(description="With what people edited; false: as the engine wrote it")] = True,
    download: Annotated[bool, Query(description="For a browser: save it, do not show it")] = False,
) -> Response:
    """The best transcript there is: the final one, or the live one until then; an edited one stays until another is
    accepted."""
    chosen = format_named(format)

    def read(conn: Connection) -> tuple[calls.Call, transcripts.Transcript, list[Segment]]:
        call = calls.get_call(conn, call_id, client)
        found = _wanted(conn, call, pass_, transcript_id)
        return call, found, transcripts.segments(conn, found.id, edited=edited)

    def write(conn: Connection) -> tuple[bytes, str]:
        call, found, segments = read(conn)
        return chosen.render(call, found, segments, options), call.title or call.id

    # Written in the reader's thread: the subtitles of a long call take a second.
    body, name = await house.database.read(write)
    headers = {"Content-Disposition": disposition(name, chosen.extension, attach=download)}
    return Response(body, media_type=chosen.media_type, headers=headers)


@router.get("/{call_id}/transcripts")
async def list_transcripts(house: House, client: Client, call_id: str) -> dict[str, Any]:
    """All transcripts of a call, newest first; `current` is the one that counts."""

    def read(conn: Connection) -> list[transcripts.Transcript]:
        calls.get_call(conn, call_id, client)
        return transcripts.of_call(conn, call_id)

    found = await house.database.read(read)
    return {"data": [transcript_noun(transcript) for transcript in found], "next": None}


@router.post("/{call_id}/transcripts/{transcript_id}/accept")
async def accept(house: House, client: Client, call_id: str, transcript_id: str) -> dict[str, Any]:
    """Make this transcript the one that counts, in place of an edited one; the edits stay with theirs."""

    def write(conn: Connection) -> transcripts.Transcript:
        calls.get_call(conn, call_id, client)
        return transcripts.accept(conn, transcript_id, call_id)

    return transcript_noun(await house.database.write(write))


def _wanted(conn: Connection, call: calls.Call, pass_: str | None, transcript_id: str | None) -> transcripts.Transcript:
    if pass_ is None and transcript_id is None:
        if (current := transcripts.current_transcript(conn, call.id)) is not None:
            return current
    else:
        for found in transcripts.of_call(conn, call.id):
            wanted = found.id == transcript_id if transcript_id is not None else found.state != "failed"
            if wanted and pass_ in (None, found.pass_):
                return found
    raise NotFound("This call has no such transcript yet", hint=f"Its state is {call.state}; see its jobs")


def disposition(title: str, extension: str, *, attach: bool) -> str:
    """A Content-Disposition that names the file after what it was made from (RFC 6266); safe as a file's name too."""
    stem = PurePath(title).stem if PurePath(title).suffix[1:].isalnum() else title
    name = " ".join(UNSAFE.sub("_", unicodedata.normalize("NFC", stem)).split())[:NAME_LENGTH].strip(" .")
    if not any(map(str.isalnum, name)):
        name = "transcript"
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    kind = "attachment" if attach else "inline"
    return f"{kind}; filename=\"{plain}.{extension}\"; filename*=UTF-8''{quote(name)}.{extension}"
