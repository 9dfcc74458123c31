"""The download child: one model from the hub into its folder, taken up where an earlier attempt was ended.

    python -m callreel.engines.fetch ORDER_JSON

It says its progress on standard output, a JSON object a line, and ends when its standard input closes. The hub's
client finds the files and the user's token; the bytes are fetched here, because that client begins each file anew
after its process has died, and moves them in steps of 10 MB.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from callreel.engines import shelf
from callreel.engines.process import end_with_parent
from callreel.errors import CallreelError, EngineUnavailable, InvalidInput, ModelMissing, OutOfSpace, disk_fault

TIMEOUTS = httpx.Timeout(30.0, connect=10.0)
ATTEMPTS = 5  # in a row that bring not a byte
PAUSE_S = 1.0
SAY_EVERY_S = 0.2
SPARE_BYTES = 50_000_000  # left on the disk
COMMIT = "commit"  # the file in a draft that says which version of the repository it is of
INCOMPLETE = ".incomplete"
HOW_ELSE = "Check the network, models.hub_url and models.proxy; or take it to this machine: callreel models import DIR"


class Progress(msgspec.Struct, frozen=True):
    """How far a download is, bytes; what an earlier attempt fetched counts."""

    done_bytes: int
    total_bytes: int

    @property
    def percent(self) -> float:
        return 100.0 * self.done_bytes / self.total_bytes if self.total_bytes else 0.0


class Order(msgspec.Struct, frozen=True):
    """Which repository, from which hub, into which folder."""

    repository: str
    target: str
    hub_url: str


class Line(msgspec.Struct):
    """What the child says, one of these a line."""

    progress: Progress | None = None
    error: dict[str, Any] | None = None


class _File(msgspec.Struct, frozen=True):
    """A file of the repository; git's own files have no SHA-256 there."""

    name: str
    size: int
    sha256: str | None


class _Fetch:
    """One attempt. Files lie in a draft folder beside the target until all of them are whole."""

    def __init__(self, order: Order, say: Callable[[Progress], None]) -> None:
        self._order, self._say = order, say
        self._target = Path(order.target)
        self._draft = self._target.parent / shelf.INCOMING / self._target.name
        self._said_at = 0.0
        self._total_bytes = 0

    def run(self) -> None:
        """Raises InvalidInput, ModelMissing, EngineUnavailable and OutOfSpace, as `download.pull` says."""
        commit, files, headers = self._listed()
        self._total_bytes = sum(file.size for file in files)
        with self._alone():
            if not shelf.lacking(self._target):
                return  # another process was quicker
            self._begin_or_go_on(commit)
            needed = self._total_bytes - self._done_bytes() + SPARE_BYTES
            if shutil.disk_usage(self._draft).free < needed:
                raise OutOfSpace(f"{self._order.repository} needs {needed} bytes more than {self._draft.parent} has")
            with httpx.Client(headers=headers, timeout=TIMEOUTS, follow_redirects=True) as client:
                for file in files:
                    url = f"{self._order.hub_url}/{self._order.repository}/resolve/{commit}/{quote(file.name)}"
                    self._file(client, url, file)
            self._progress(always=True)
            (self._draft / COMMIT).unlink()
            if self._target.exists():  # a folder that was never whole
                shutil.rmtree(self._target)
            self._draft.rename(self._target)

    def _listed(self) -> tuple[str, list[_File], dict[str, str]]:
        """The version of the repository, those of its files that are a model's, and the headers that open them."""
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

        repository, hub = self._order.repository, self._order.hub_url
        try:
            info = HfApi(endpoint=hub).model_info(repository, files_metadata=True, timeout=TIMEOUTS.connect)
        except (HfHubHTTPError, HFValidationError) as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else httpx.codes.NOT_FOUND
            known = isinstance(error, GatedRepoError | RepositoryNotFoundError)
            if known or status == httpx.codes.NOT_FOUND:  # a mirror may say no more than this number
                raise ModelMissing(
                    f"{hub} has no model {repository!r} that we may have",
                    hint="Check its name; for one that is not open to all set HF_TOKEN",
                ) from error
            raise EngineUnavailable(f"{hub} refuses {repository!r} with HTTP {status}", hint=HOW_ELSE) from error
        except Exception as error:  # its HTTP library is another one in each of its major versions
            raise EngineUnavailable(f"{hub} cannot be reached: {error}", hint=HOW_ELSE) from error
        wanted = (*shelf.NEEDED_FILES, *shelf.VOCABULARIES, *shelf.OTHER_FILES)
        files = [
            _File(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or []
            if file.rfilename in wanted
        ]
        names = {file.name for file in files}
        missing = [name for name in shelf.NEEDED_FILES if name not in names]
        if not names.intersection(shelf.VOCABULARIES):
            missing.append(shelf.VOCABULARIES[0])
        if missing:
            raise InvalidInput(
                f"{repository!r} is no Whisper model for CTranslate2: it has no {' and no '.join(missing)}",
                hint="Take a repository of a converted model, such as Systran/faster-whisper-base",
            )
        files.sort(key=lambda file: file.size)
        headers = {"Accept-Encoding": "identity"}
        token = get_token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return info.sha or "main", files, headers

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While another process fetches the same model, wait for it and say its progress."""
        self._draft.parent.mkdir(parents=True, exist_ok=True)
        with self._draft.with_name(f"{self._draft.name}.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._progress()
                    time.sleep(SAY_EVERY_S)
            yield

    def _begin_or_go_on(self, commit: str) -> None:
        mark = self._draft / COMMIT
        if self._draft.exists() and (not mark.exists() or mark.read_text() != commit):
            shutil.rmtree(self._draft)  # of a version that the hub has replaced
        self._draft.mkdir(exist_ok=True)
        mark.write_text(commit)

    def _file(self, client: httpx.Client, url: str, file: _File) -> None:
        whole = self._draft / file.name
        partial = self._draft / (file.name + INCOMPLETE)
        if whole.exists():
            return
        failures = 0
        while True:
            before = partial.stat().st_size if partial.exists() else 0
            if before >= file.size > 0:
                break
            try:
                self._append(client, url, partial, before)
                break
            except httpx.HTTPError as error:
                failures = 0 if partial.exists() and partial.stat().st_size > before else failures + 1
                if failures >= ATTEMPTS or not _may_pass(error):
                    raise EngineUnavailable(f"The download of {url} failed: {_why(error)}", hint=HOW_ELSE) from error
                logging.warning("%s: %s; trying again", url, _why(error))
                time.sleep(PAUSE_S)
        if (file.size and partial.stat().st_size != file.size) or (file.sha256 and _sha256(partial) != file.sha256):
            partial.unlink()
            raise EngineUnavailable(f"{url} did not arrive as the hub has it; it is fetched anew next time")
        partial.rename(whole)

    def _append(self, client: httpx.Client, url: str, partial: Path, begin: int) -> None:
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        with client.stream("GET", url, headers=headers) as answer:
            answer.raise_for_status()
            # A server that knows no ranges sends all of it again.
            with partial.open("ab" if answer.status_code == httpx.codes.PARTIAL_CONTENT else "wb", buffering=0) as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
                    self._progress()

    def _done_bytes(self) -> int:
        """What lies on the disk, whoever put it there."""
        try:
            return sum(path.stat().st_size for path in self._draft.iterdir() if path.name != COMMIT)
        except OSError:
            return 0

    def _progress(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            self._say(Progress(min(self._done_bytes(), self._total_bytes), self._total_bytes))


def _may_pass(error: httpx.HTTPError) -> bool:
    """May the same request succeed in a moment?"""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return True


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):  # its own words point to a page about status codes
        return f"HTTP {error.response.status_code}"
    return str(error) or type(error).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    end_with_parent()
    order = msgspec.json.decode(sys.argv[1], type=Order)
    said = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among our lines

    def say(line: Line) -> None:
        said.write(msgspec.json.encode(line) + b"\n")
        said.flush()

    try:
        _Fetch(order, lambda progress: say(Line(progress=progress))).run()
    except CallreelError as error:
        say(Line(error=error.as_dict()))
        sys.exit(1)
    except OSError as error:
        failed: CallreelError = disk_fault(error)
        if not isinstance(failed, OutOfSpace):
            failed = EngineUnavailable(f"{order.target} cannot be written: {error}")
        say(Line(error=failed.as_dict()))
        sys.exit(1)


if __name__ == "__main__":
    main()
