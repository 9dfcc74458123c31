"""Fetch a stranger's file: bounded in size and time, every hop checked, taken up again where it broke off."""

from __future__ import annotations

import os
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import httpcore
import httpx

from callreel.errors import SourceRefused, SourceUnavailable, TooLarge, disk_fault
from callreel.net.addresses import Resolver, check_url, system_resolver
from callreel.net.connection import READ_S, Headers, exchange, header

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
RETRY_STATUSES = (408, 425, 429)  # and 5xx: another time it may work
RESUME_WAITS_S = (0.2, 2.0)  # before each time that a broken fetch is taken up again
NAME_BYTES = 200  # file systems take 255, and the name may get an ending
UNNAMED = "source"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was fetched; `filename` is what its server calls it, safe to show and to save under."""

    path: Path
    size_bytes: int
    filename: str
    media_type: str | None


def fetch(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    timeout_s: float,
    allow_networks: Sequence[str] = (),
    on_progress: Progress = lambda done, total: None,
    read_s: float = READ_S,
    resolve: Resolver = system_resolver,
) -> Fetched:
    """Fetch `url` into `target`, which is there after this only if all of it came.

    `on_progress(bytes, bytes in all or None)` is called for each piece, and may raise to stop. `timeout_s` is for
    everything together, `read_s` for a silent server. A name and a password in the URL go to its own origin alone.

    Raises InvalidInput for the URL, ForbiddenAddress where it or a redirect leads inside, TooLarge above `max_bytes`,
    SourceRefused when its server says no, SourceUnavailable (transient) when it cannot be reached or breaks off,
    OutOfSpace or StorageUnavailable when the disk does not take it.
    """
    fetching = _Fetch(
        check_url(url, allow_networks), tuple(allow_networks), max_bytes, timeout_s, read_s, on_progress, resolve
    )
    partial = target.with_name(f"{target.name}.part")  # what fails or is killed never stands under the name itself
    try:
        with _disk_faults():
            file = partial.open("wb", buffering=0)
        with file:
            media_type, filename = fetching.run(file)
            size = file.tell()
            with _disk_faults():
                os.fsync(file.fileno())
        with _disk_faults():
            partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return Fetched(target, size, filename, media_type)


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_fault(error) from error


class _Fetch:
    """One fetch under way; `_etag` names the version that the bytes held so far belong to."""

    def __init__(
        self,
        url: httpx.URL,
        allow_networks: tuple[str, ...],
        max_bytes: int,
        timeout_s: float,
        read_s: float,
        on_progress: Progress,
        resolve: Resolver,
    ) -> None:
        self._url, self._allow_networks, self._resolve = url, allow_networks, resolve
        self._max_bytes, self._on_progress = max_bytes, on_progress
        self._read_s = read_s
        self._deadline = time.monotonic() + timeout_s
        self._etag: str | None = None

    def run(self, file: BinaryIO) -> tuple[str | None, str]:
        """Fill `file`; returns its media type and name."""
        waits = iter(RESUME_WAITS_S)
        while True:
            held = file.tell()
            try:
                return self._follow(file)
            except SourceUnavailable as error:
                wait_s = next(waits, None)
                broke_off = self._etag is not None and file.tell() > held
                if wait_s is None or not broke_off or time.monotonic() + wait_s >= self._deadline:
                    raise error
            time.sleep(wait_s)

    def _follow(self, file: BinaryIO) -> tuple[str | None, str]:
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            with exchange(
                "GET",
                url,
                self._headers(url, file.tell()),
                allow_networks=self._allow_networks,
                deadline=self._deadline,
                resolve=self._resolve,
                read_s=self._read_s,
            ) as response:
                if response.status not in REDIRECTS:
                    return self._take(response, url, file)
                location = header(response, "location")
            try:
                moved = url.join(location or "")
            except (httpx.InvalidURL, ValueError):
                raise SourceRefused(f"{url.host} redirects to what is no URL.", host=url.host) from None
            url = check_url(str(moved), self._allow_networks)
        raise SourceRefused(f"{self._url.host} redirects more than {MAX_REDIRECTS} times.", host=self._url.host)

    def _headers(self, url: httpx.URL, held: int) -> Headers:
        headers = [("Accept", "*/*"), ("Accept-Encoding", "identity")]
        if self._url.userinfo and _origin(url) == _origin(self._url):
            user = f"{self._url.username}:{self._url.password}"
            headers.append(("Authorization", f"Basic {b64encode(user.encode()).decode()}"))
        if held and self._etag is not None:
            headers += [("Range", f"bytes={held}-"), ("If-Range", self._etag)]
        return headers

    def _take(self, response: httpcore.Response, url: httpx.URL, file: BinaryIO) -> tuple[str | None, str]:
        """Append the body to `file`, or begin anew where the server does."""
        _require_success(response, url)
        if response.status == 206:
            start = re.match(r"bytes (\d+)-", header(response, "content-range") or "")
            if start is None or int(start[1]) != file.tell():
                raise SourceRefused(f"{url.host} does not send the range that it was asked for.", host=url.host)
        elif file.tell():
            file.seek(0)
            file.truncate()
        self._etag = _strong(header(response, "etag"))
        declared = header(response, "content-length")
        total = file.tell() + int(declared) if declared is not None and declared.isdecimal() else None
        self._require_room(total or 0)
        for piece in response.iter_stream():
            self._require_room(file.tell() + len(piece))
            with _disk_faults():
                rest = memoryview(piece)
                while rest:  # a disk that becomes full takes a part
                    rest = rest[file.write(rest) :]
            self._on_progress(file.tell(), total)
        media_type = (header(response, "content-type") or "").partition(";")[0].strip().lower()
        return media_type or None, _filename(header(response, "content-disposition"), url)

    def _require_room(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLarge("The file behind this URL is larger than the server takes.", max_bytes=self._max_bytes)


def _require_success(response: httpcore.Response, url: httpx.URL) -> None:
    status = response.status
    if status >= 500 or status in RETRY_STATUSES:
        raise SourceUnavailable(f"{url.host} answers {status}.", host=url.host, status=status)
    if status not in (200, 206):
        raise SourceRefused(f"{url.host} answers {status}.", host=url.host, status=status)
    coding = (header(response, "content-encoding") or "identity").strip().lower()
    if coding not in ("identity", ""):
        raise SourceRefused(f"{url.host} sends the file as {coding}, though asked not to.", host=url.host)


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


def _strong(etag: str | None) -> str | None:
    """An ETag that names bytes; a weak one does not, so ranges of it may not be joined (RFC 9110, 13.1.5)."""
    return etag if etag is not None and etag.startswith('"') else None


def _filename(disposition: str | None, url: httpx.URL) -> str:
    message = Message()
    name = None
    if disposition is not None:
        with suppress(ValueError, LookupError):  # an unknown charset, a line break
            message["Content-Disposition"] = disposition
            name = message.get_filename()
    return safe_filename(name or unquote(url.path))


def safe_filename(name: str) -> str:
    """The last part of a path in any system's spelling, without control characters, not hidden and not too long."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    kept = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .")
    stem, dot, extension = kept.rpartition(".")
    if dot and len(extension) < 10:
        return f"{_cut(stem, NAME_BYTES - 40)}.{extension}"
    return _cut(kept, NAME_BYTES) or UNNAMED


def _cut(text: str, size: int) -> str:
    return text.encode(errors="replace")[:size].decode(errors="ignore")
