"""A Callreel server from Python: send a file, follow its job, read what was said.

    with callreel.Client("http://localhost:8125") as client:
        job = client.submit("call.wav", channels="split", speakers=["agent", "customer"])
        client.wait(job["id"], on_progress=lambda job: print(job["progress"]))
        print(client.transcript(job["call_id"], "txt"))

Answers are the API's nouns as dicts. What the server refuses is raised as the same errors it has itself.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import httpx

from callreel import errors
from callreel.errors import CallreelError, ServerUnreachable

Noun = dict[str, Any]

URL = "http://127.0.0.1:8125"
TIMEOUT_S = 60.0  # for an answer to begin; a job's own time does not count
POLL_S = 1.0  # between two looks at a job whose events do not come through
SILENCE_S = 15.0  # without an event, a look at the job itself
PASSING = (429, 502, 503, 504)  # answers of proxies to what may work a moment later
FINISHED = ("succeeded", "failed", "cancelled")
TEXT = ("text/", "application/x-subrip")  # kinds of transcripts that are text


class Client:
    """One server, one key. Not for several threads at once. Close it, or use it as a context.

    Every method raises CallreelError: one of its kinds that the server answered with, or ServerUnreachable.
    """

    def __init__(self, url: str = URL, key: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        if not (key or "").isascii():
            raise errors.InvalidInput("This is no API key: it has characters that none has")
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if urlsplit(url).scheme not in ("http", "https"):
            raise errors.InvalidInput(f"{url!r} is no URL of a server", hint=f"Such as {URL}")
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, follow_redirects=True)
        except httpx.InvalidURL as error:
            raise errors.InvalidInput(f"{url!r} is no URL of a server: {error}", hint=f"Such as {URL}") from error
        self.url = url.rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self,
        source: str | Path | BinaryIO,
        *,
        title: str | None = None,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Noun:
        """A job that transcribes a file (by path, or open for reading), or what lies behind an http(s) URL.

        `options` are the fields of POST /v1/jobs, such as language, profile, channels, speakers, priority; lists and
        dicts are sent as JSON. With an `idempotency_key` the same call made again answers the first one's job;
        another file or other options under it are a Conflict.
        """
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        form = {name: _field(value) for name, value in options.items() if value is not None}
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            form |= {"url": source} | ({} if title is None else {"title": title})
            return self._json("POST", "/v1/jobs", data=form, headers=headers)
        if isinstance(source, (str, Path)):
            with Path(source).open("rb") as opened:
                return self.submit(opened, title=title or Path(source).name, idempotency_key=idempotency_key, **options)
        name = (title or Path(str(getattr(source, "name", "audio"))).name).encode(errors="replace").decode()
        return self._json("POST", "/v1/jobs", data=form, files={"file": (name, source)}, headers=headers)

    def transcribe(self, source: str | Path | BinaryIO, format: str = "json", **options: Any) -> Any:
        """`submit`, `wait` and `transcript` in one. Raises the job's error where it failed."""
        job = self.wait(self.submit(source, **options)["id"])
        return self.transcript(job["call_id"], format)

    def job(self, job_id: str) -> Noun:
        return self._json("GET", f"/v1/jobs/{job_id}")

    def cancel(self, job_id: str) -> Noun:
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def wait(
        self, job_id: str, on_progress: Callable[[Noun], None] | None = None, *, timeout_s: float | None = None
    ) -> Noun:
        """The job once it has succeeded; `on_progress` is told of each change on the way.

        Follows the job's events, and asks again and again where these do not come through. Raises the error of a job
        that failed, Cancelled for a cancelled one, and TimeoutError after `timeout_s`.
        """
        tell = on_progress or (lambda job: None)
        until = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        job = self.job(job_id)
        tell(job)
        while job["state"] not in FINISHED:
            if (left_s := until - time.monotonic()) <= 0:
                raise TimeoutError(f"Job {job_id} is still {job['state']} after {timeout_s:g} s")
            seen = False
            for change in self._changes(job_id, within_s=min(left_s, SILENCE_S)):
                seen = True
                job = job | change
                tell(job)
                if time.monotonic() > until:
                    break
            if not seen:
                time.sleep(min(POLL_S, left_s))
            job = self.job(job_id)
        tell(job)
        if job["state"] != "succeeded":
            raise CallreelError.of(job["error"] or {"code": errors.Cancelled.code})
        return job

    def job_events(self, job_id: str) -> Iterator[Noun]:
        """What happens to a job until it ends, as events {type, id, at, data}; `segments` come as they are certain."""
        return self._events(f"/v1/jobs/{job_id}/events", TIMEOUT_S)

    def call_events(self, call_id: str) -> Iterator[Noun]:
        """What was said in a call so far, then what is said from now on, as events {type, id, at, data}."""
        return self._events(f"/v1/calls/{call_id}/events", TIMEOUT_S)

    def call(self, call_id: str) -> Noun:
        return self._json("GET", f"/v1/calls/{call_id}")

    def calls(self, **filters: Any) -> Iterator[Noun]:
        """All calls that `filters` (of GET /v1/calls) let through, newest first, asked for page by page."""
        return self._pages("/v1/calls", filters)

    def jobs(self, **filters: Any) -> Iterator[Noun]:
        """All jobs that `filters` (of GET /v1/jobs) let through, newest first, asked for page by page."""
        return self._pages("/v1/jobs", filters)

    def search(self, query: str, **filters: Any) -> Iterator[Noun]:
        """Moments where something is said, best first, asked for page by page: call, segment, second and snippet."""
        return self._pages("/v1/search", {"q": query} | filters)

    def transcript(self, call_id: str, format: str = "json", **options: Any) -> Any:
        """A call's transcript: parsed for json, bytes for docx, text for every other format."""
        answer = self._answer("GET", f"/v1/calls/{call_id}/transcript", params={"format": format, **options})
        kind = answer.headers.get("content-type", "")
        if kind.startswith("application/json"):
            return answer.json()
        return answer.text if kind.startswith(TEXT) else answer.content

    def delete(self, call_id: str) -> None:
        """Delete a call and everything under it."""
        self._answer("DELETE", f"/v1/calls/{call_id}")

    def health(self) -> Noun:
        return self._json("GET", "/health")

    def clients(self) -> Iterator[Noun]:
        """Every client that holds a key; for admins, as the two below."""
        return self._pages("/v1/keys", {})

    def create_key(self, name: str, role: str = "user") -> Noun:
        """A new client; the answer is the only one that ever has its `key`."""
        return self._json("POST", "/v1/keys", json={"name": name, "role": role})

    def rotate_key(self, client_id: str) -> Noun:
        """A new key for a client, in place of its old one."""
        return self._json("POST", f"/v1/keys/{client_id}/rotate")

    def revoke_key(self, client_id: str) -> None:
        """The client's key is none any more; what it owns stays."""
        self._answer("DELETE", f"/v1/keys/{client_id}")

    def _changes(self, job_id: str, *, within_s: float) -> Iterator[Noun]:
        """What events tell of a job, until it has ended or they do not come through."""
        try:
            for event in self._events(f"/v1/jobs/{job_id}/events", within_s):
                if event["type"] == "job":
                    yield event["data"]
                    if event["data"].get("state") in FINISHED:
                        return
        except CallreelError:  # whoever asks for the job itself next is told, if it is more than a broken stream
            return

    def _events(self, path: str, within_s: float) -> Iterator[Noun]:
        """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), their data parsed."""
        limits = httpx.Timeout(TIMEOUT_S, read=within_s)
        with _named(self.url), self._http.stream("GET", path, timeout=limits) as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
            data: list[str] = []
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                elif not line and data:
                    yield json.loads("\n".join(data))
                    data = []

    def _pages(self, path: str, params: Mapping[str, Any]) -> Iterator[Noun]:
        page = self._json("GET", path, params=params)
        yield from page["data"]
        while page.get("next"):
            page = self._json("GET", path, params={**params, "cursor": page["next"]})
            yield from page["data"]

    def _json(self, method: str, path: str, **request: Any) -> Noun:
        answer = self._answer(method, path, **request)
        with _named(self.url):
            noun: Noun = answer.json()
            return noun

    def _answer(self, method: str, path: str, **request: Any) -> httpx.Response:
        with _named(self.url):
            answer = self._http.request(method, path, **request)
            _check(answer)
            return answer


@contextmanager
def _named(url: str) -> Iterator[None]:
    """What the network did, by our name."""
    try:
        yield
    except httpx.TransportError as error:
        raise ServerUnreachable(f"The server at {url} does not answer: {error or type(error).__name__}") from error
    except (httpx.HTTPError, httpx.StreamError, ValueError) as error:
        raise CallreelError(
            f"What answers at {url} is not understood: {error}", hint="Is it a Callreel server?"
        ) from error


def _check(answer: httpx.Response) -> None:
    """Raises what an answer says is wrong; a Retry-After is in the error's detail as `retry_after_s`."""
    if answer.is_success:
        return
    try:
        body = answer.json()["error"]
        error = CallreelError.of(body if isinstance(body, dict) else {"message": str(body)})
    except (ValueError, KeyError, TypeError):  # not ours: a proxy's page, another server
        error = CallreelError(f"{answer.url} answered {answer.status_code} {answer.reason_phrase}")
        error.transient = answer.status_code in PASSING
    error.status = answer.status_code
    if (retry_after := answer.headers.get("retry-after", "")).isdigit():
        error.detail.setdefault("retry_after_s", int(retry_after))
    raise error


def _field(value: Any) -> Any:
    """As a form has it; a list is a field that comes several times."""
    if isinstance(value, (list, tuple)):
        return [_field(one) for one in value]
    return json.dumps(value) if isinstance(value, (dict, bool)) else str(value)
