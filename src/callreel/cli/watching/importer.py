"""From a watched folder to a server: each content is sent once, its job followed, its file put where it belongs."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from callreel.cli.watching.folder import DONE, FAILED, Folder, Found, put_away
from callreel.cli.watching.journal import Entry, Journal
from callreel.client import Client
from callreel.errors import CallreelError, Conflict, InvalidInput, NotFound, QueueFull

After = Literal["keep", "move", "delete"]
ASKED_A_ROUND = 100  # jobs that are looked at, of those that wait longest
QUEUE_WAIT_S = 30.0  # where a full queue does not say how long


@dataclass(frozen=True, slots=True)
class Left:
    """Files that are not through: those that may not be whole yet, and those whose import is under way."""

    unwritten: int
    under_way: int


@dataclass(slots=True)
class Importer:
    """One round after another: `round` returns, or raises what stands in the way of all files, such as no server.

    `options` go with every file; named groups of `labels`, searched in a file's path, become its labels. `failed`
    counts files that could not be imported.
    """

    client: Client
    folder: Folder
    journal: Journal
    options: Mapping[str, Any]
    labels: re.Pattern[str] | None
    after: After
    say: Callable[[str], None]
    failed: int = 0
    _queue_full_until: float = field(default=0.0)

    def round(self) -> Left:
        """Look at jobs and files once. Raises CallreelError."""
        for entry in self.journal.sent()[:ASKED_A_ROUND]:
            self._follow(entry)
        written, unwritten = self.folder.look(time.monotonic(), self._is_through)
        unsent = 0
        for found in written:
            with suppress(FileNotFoundError):  # taken away meanwhile
                unsent += not self._take(found)
        return Left(unwritten, unsent + len(self.journal.sent()))

    def _is_through(self, found: Found) -> bool:
        entry = self.journal.of_name(found.name)
        return entry is not None and entry.is_of(found) and not entry.put_away

    def _take(self, found: Found) -> bool:
        """Send a file whose content the server does not have yet; False while its queue is full."""
        if time.monotonic() < self._queue_full_until:
            return False
        with found.path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        new = Entry(found.name, found.size, found.mtime_ns, sha256, "sent")
        earlier = self.journal.of_content(sha256)
        if earlier is not None and earlier.state == "done":
            self.say(f"{found.name}: the same as {earlier.name}, which was imported already")
            self._end(found, replace(new, state="done", job_id=earlier.job_id))
            return True
        if earlier is not None:  # failed ones are tried anew, under a key of their own
            new = replace(new, attempt=earlier.attempt + (earlier.state == "failed"))
        try:
            job = self._submit(found, new)
        except QueueFull as full:
            self._queue_full_until = time.monotonic() + float(full.detail.get("retry_after_s", QUEUE_WAIT_S))
            return False
        except Conflict as made:  # by a watch that was cut off and had other options: each content is sent once
            job = {"id": made.detail["job_id"]}
        except InvalidInput as error:
            if _is_of_options(error):
                raise
            self._fail(found, new, error)
            return True
        self.journal.write(replace(new, job_id=job["id"]))
        self.say(f"{found.name}: sent, job {job['id']}")
        return True

    def _submit(self, found: Found, entry: Entry) -> dict[str, Any]:
        options = dict(self.options)
        if labels := self._labels(found.name):
            options["labels"] = labels
        key = f"{entry.sha256}-{entry.attempt}" if entry.attempt > 1 else entry.sha256
        return self.client.submit(found.path, idempotency_key=key, **options)

    def _labels(self, name: str) -> dict[str, str]:
        match = self.labels.search(name) if self.labels else None
        return {} if match is None else {group: text for group, text in match.groupdict().items() if text}

    def _follow(self, entry: Entry) -> None:
        """What came of a job: its file is put away, or said to be bad."""
        found = Found(self.folder.root / entry.name, entry.name, entry.size, entry.mtime_ns)
        try:
            job = self.client.job(entry.job_id)
        except NotFound:  # another server, or one that has forgotten it: the file is sent again
            self.journal.write(replace(entry, state="failed", mtime_ns=0))
            return
        if job["state"] == "succeeded":
            self.say(f"{entry.name}: done, call {job['call_id']}")
            self._end(found, replace(entry, state="done"))
        elif job["state"] in ("failed", "cancelled"):
            self._fail(found, entry, CallreelError.of(job["error"] or {"code": "cancelled"}))

    def _end(self, found: Found, entry: Entry) -> None:
        if self.after == "keep":
            self.journal.write(entry)
            return
        self.journal.write(replace(entry, put_away=True))
        with suppress(FileNotFoundError):  # somebody else was tidy
            if self.after == "move":
                put_away(found, self.folder.root, DONE)
            else:
                found.path.unlink()

    def _fail(self, found: Found, entry: Entry, error: CallreelError) -> None:
        self.failed += 1
        aside = self.after != "keep"
        self.journal.write(replace(entry, state="failed", put_away=aside))
        where = ""
        if aside:
            with suppress(FileNotFoundError):
                where = f"; it lies in {put_away(found, self.folder.root, FAILED).parent} now"
        self.say(f"{entry.name}: not imported: {error}{where}" + (f"\n  {error.hint}" if error.hint else ""))


def _is_of_options(error: InvalidInput) -> bool:
    """Is it what we asked for with every file, not the file?"""
    named = [error.detail.get("field"), *(problem.get("field") for problem in error.detail.get("problems", ()))]
    return any(name not in (None, "file") for name in named)
