from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.errors import (
    ForbiddenAddress,
    InvalidInput,
    OutOfSpace,
    SourceRefused,
    SourceUnavailable,
    TooLarge,
)
from callreel.net import Fetched, connection, fetch, fetching
from callreel.net.addresses import Resolver, system_resolver
from callreel.net.fetching import safe_filename
from tests.net.sites import CERTIFICATE, HERE, Exchange, Names, site

BODY = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "RESUME_WAITS_S", (0.0, 0.0))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "source"
    yield path
    assert [p.name for p in tmp_path.iterdir()] in ([], ["source"])


def get(
    url: str,
    target: Path,
    *,
    allow: tuple[str, ...] = HERE,
    max_bytes: int = 1 << 20,
    timeout_s: float = 60,
    read_s: float = 60,
    resolve: Resolver = system_resolver,
) -> Fetched:
    return fetch(
        url,
        target,
        max_bytes=max_bytes,
        timeout_s=timeout_s,
        allow_networks=allow,
        read_s=read_s,
        resolve=resolve,
    )


def test_a_file_comes_whole_with_its_name_and_type(target: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    with site(lambda e: e.answer(body=BODY, content_type="audio/wav; x=1")) as there:
        fetched = fetch(
            there.url("/calls/a%20call.wav?sig=1"),
            target,
            max_bytes=len(BODY),
            timeout_s=60,
            allow_networks=HERE,
            on_progress=lambda done, total: steps.append((done, total)),
        )
    assert fetched == Fetched(target, len(BODY), "a call.wav", "audio/wav")
    assert target.read_bytes() == BODY
    assert steps[-1] == (len(BODY), len(BODY)) and steps == sorted(steps)
    (asked,) = there.seen
    assert asked.path == "/calls/a%20call.wav?sig=1"
    assert asked.headers["Host"] == f"127.0.0.1:{there.server_port}"
    assert asked.headers["Accept-Encoding"] == "identity"
    assert asked.headers["User-Agent"].startswith("callreel/")


def test_a_body_without_a_length_is_read_to_its_end(target: Path) -> None:
    def chunked(e: Exchange) -> None:
        e.send_response(200)
        e.send_header("Transfer-Encoding", "chunked")
        e.end_headers()
        e.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    with site(chunked) as there:
        assert get(there.url("/"), target) == Fetched(target, 5, "source", None)


def test_nothing_is_asked_of_an_inside_address(target: Path) -> None:
    with site(lambda e: e.answer(body=BODY)) as there:
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1"):
            with pytest.raises(ForbiddenAddress):
                get(there.url(host=host), target, allow=())
        with pytest.raises(ForbiddenAddress):
            get(there.url(host="inside.test"), target, allow=(), resolve=Names(inside_test=[["127.0.0.1"]]))
    assert there.seen == []


def test_redirects_are_followed_and_the_last_name_counts(target: Path) -> None:
    def answering(e: Exchange) -> None:
        hops = {"/a": "/b", "/b": there.url("/c"), "/c": "d.ogg"}
        e.redirect(hops[e.path]) if e.path in hops else e.answer(body=b"ok")

    with site(answering) as there:
        assert get(there.url("/a"), target).filename == "d.ogg"


@pytest.mark.parametrize(
    "location", ["http://10.0.0.1/x", "http://[::1]/x", "//169.254.169.254/latest/meta-data", "http://localhost./"]
)
def test_a_redirect_inside_is_refused(target: Path, location: str) -> None:
    names = Names(outside_test=[["127.0.0.1"]])
    with site(lambda e: e.redirect(location)) as there, pytest.raises(ForbiddenAddress):
        # The first hop is allowed, as a public address would be; the second is not.
        get(
            there.url(host="outside.test"),
            target,
            allow=("127.0.0.1/32",) if "localhost" not in location else (),
            resolve=names,
        )


def test_a_redirect_to_what_is_no_http_is_refused(target: Path) -> None:
    with site(lambda e: e.redirect("file:///etc/passwd")) as there, pytest.raises(InvalidInput):
        get(there.url(), target)
    with site(lambda e: e.redirect("http://a:x/")) as there, pytest.raises(SourceRefused):
        get(there.url(), target)


def test_redirects_end(target: Path) -> None:
    with site(lambda e: e.redirect("/again")) as there, pytest.raises(SourceRefused, match="more than 5"):
        get(there.url(), target)
    assert len(there.seen) == 6


def test_a_name_is_resolved_once_and_what_was_checked_is_reached(target: Path) -> None:
    names = Names(rebinding_test=[["127.0.0.1"], ["10.0.0.1"]])
    with site(lambda e: e.answer(body=BODY)) as there:
        get(there.url(host="rebinding.test"), target, resolve=names)
        assert names.asked == ["rebinding.test"]
        assert there.seen[0].headers["Host"] == f"rebinding.test:{there.server_port}"
        with pytest.raises(ForbiddenAddress):
            get(there.url(host="rebinding.test"), target, resolve=names)


def test_a_redirect_to_the_same_name_is_checked_again(target: Path) -> None:
    names = Names(rebinding_test=[["127.0.0.1"], ["10.0.0.1"]])
    with site(lambda e: e.redirect("/second")) as there, pytest.raises(ForbiddenAddress):
        get(there.url(host="rebinding.test"), target, resolve=names)
    assert len(there.seen) == 1


def test_an_address_that_does_not_answer_is_no_reason_to_give_up(target: Path) -> None:
    with site(lambda e: e.answer(body=BODY)) as there:
        names = Names(two_test=[["127.0.0.2", "127.0.0.1"]])  # it listens on the second only
        assert get(there.url(host="two.test"), target, resolve=names).size_bytes == len(BODY)


def test_proxies_of_the_environment_are_not_used(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with site(lambda e: e.answer(body=BODY)) as there:
        assert get(there.url(), target).size_bytes == len(BODY)


def test_credentials_go_to_their_own_origin_only(target: Path) -> None:
    with (
        site(lambda e: e.answer(body=b"ok")) as other,
        site(lambda e: e.redirect("/b" if e.path == "/a" else other.url())) as there,
    ):
        get(there.url("/a").replace("http://", "http://ada:p%40ss@"), target)
    assert [e.headers["Authorization"] for e in there.seen] == ["Basic YWRhOnBAc3M="] * 2
    assert other.seen[0].headers["Authorization"] is None


@pytest.mark.parametrize("declared", [str(len(BODY)), None, "0" * 5000 + "9" * 5000])
def test_a_body_that_is_too_large_is_not_read_to_its_end(target: Path, declared: str | None) -> None:
    sent = 0

    def endless(e: Exchange) -> None:
        nonlocal sent
        e.send_response(200)
        if declared is not None:
            e.send_header("Content-Length", declared)
        e.send_header("Connection", "close")
        e.end_headers()
        e.close_connection = True
        while True:
            e.wfile.write(BODY)
            sent += len(BODY)

    with site(endless) as there, pytest.raises((TooLarge, SourceUnavailable)):
        get(there.url(), target, max_bytes=1000)
    assert not target.exists()


def test_a_length_that_says_too_much_is_believed(target: Path) -> None:
    with site(lambda e: e.answer(content_length="99999999")) as there, pytest.raises(TooLarge):
        get(there.url(), target, max_bytes=1000)


def cut_off(e: Exchange, etag: str | None = '"v1"', start: int = 0) -> None:
    """The first half of what is left of BODY, then nothing more."""
    half = start + (len(BODY) - start) // 2
    e.send_response(206 if start else 200)
    e.send_header("Content-Length", str(len(BODY) - start))
    if start:
        e.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
    if etag:
        e.send_header("ETag", etag)
    e.end_headers()
    e.wfile.write(BODY[start:half])
    e.hang_up()


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_a_hang_up_in_the_middle_leaves_nothing(target: Path, etag: str | None) -> None:
    with site(lambda e: cut_off(e, etag)) as there, pytest.raises(SourceUnavailable) as broken:
        get(there.url(), target)
    assert broken.value.transient and len(there.seen) == 1
    assert not target.exists()


def test_a_hang_up_is_taken_up_where_it_was(target: Path) -> None:
    def answering(e: Exchange) -> None:
        asked = e.headers["Range"]
        if asked is None:
            return cut_off(e)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        assert e.headers["If-Range"] == '"v1"'
        if len(there.seen) == 2:
            return cut_off(e, start=start)
        return e.answer(206, BODY[start:], etag='"v1"', content_range=f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")

    with site(answering) as there:
        assert get(there.url(), target).size_bytes == len(BODY)
    assert target.read_bytes() == BODY
    assert len(there.seen) == 3


def test_a_file_that_changed_meanwhile_is_fetched_anew(target: Path) -> None:
    with site(lambda e: cut_off(e) if len(there.seen) == 1 else e.answer(body=b"another", etag='"v2"')) as there:
        assert get(there.url(), target).size_bytes == 7
    assert target.read_bytes() == b"another"


def test_a_wrong_range_is_not_joined(target: Path) -> None:
    def answering(e: Exchange) -> None:
        if len(there.seen) == 1:
            cut_off(e)
        else:
            e.answer(206, b"x", content_range="bytes 7-7/8", etag='"v1"')

    with site(answering) as there, pytest.raises(SourceRefused):
        get(there.url(), target)


def test_taking_up_again_ends(target: Path) -> None:
    def answering(e: Exchange) -> None:
        asked = e.headers["Range"] or "bytes=0-"
        cut_off(e, start=int(asked.removeprefix("bytes=").removesuffix("-")))

    with site(answering) as there, pytest.raises(SourceUnavailable):
        get(there.url(), target)
    assert len(there.seen) == 3


def test_a_silent_server_is_given_up(target: Path) -> None:
    with site(lambda e: e.wait_until_hung_up()) as there, pytest.raises(SourceUnavailable, match="does not answer"):
        get(there.url(), target, read_s=0.2)


def test_a_server_that_drips_is_given_up_in_time(target: Path) -> None:
    gone = threading.Event()

    def drip(e: Exchange) -> None:
        e.send_response(200)
        e.send_header("Content-Length", "100000")
        e.end_headers()
        try:
            while not gone.wait(0.01):
                e.wfile.write(b"x")
        except OSError:
            gone.set()

    began = time.monotonic()
    with site(drip) as there, pytest.raises(SourceUnavailable) as late:
        get(there.url(), target, timeout_s=0.5)
    assert late.value.detail["overdue"] is True
    assert time.monotonic() - began < 30
    gone.set()


def test_a_server_that_drips_headers_is_given_up_in_time(target: Path) -> None:
    def drip(e: Exchange) -> None:
        e.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            e.wfile.write(b"X-Header: x\r\n")
            e.wfile.flush()
            threading.Event().wait(0.01)

    with site(drip) as there, pytest.raises(SourceUnavailable):
        get(there.url(), target, timeout_s=0.5)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, SourceRefused),
        (401, SourceRefused),
        (304, SourceRefused),
        (503, SourceUnavailable),
        (429, SourceUnavailable),
    ],
)
def test_what_a_server_answers_instead(target: Path, status: int, error: type[Exception]) -> None:
    with site(lambda e: e.answer(status)) as there, pytest.raises(error) as refused:
        get(there.url(), target)
    assert refused.value.detail["status"] == status  # type: ignore[attr-defined]
    assert refused.value.transient == (error is SourceUnavailable)  # type: ignore[attr-defined]


def test_what_is_no_http_is_refused(target: Path) -> None:
    def babble(e: Exchange) -> None:
        e.wfile.write(b"SSH-2.0-OpenSSH\r\n")
        e.hang_up()

    with site(babble) as there, pytest.raises(SourceUnavailable):
        get(there.url(), target)


def test_a_body_that_is_compressed_although_it_should_not_be_is_refused(target: Path) -> None:
    with site(lambda e: e.answer(body=b"x", content_encoding="gzip")) as there, pytest.raises(SourceRefused):
        get(there.url(), target)


def test_a_name_that_leads_nowhere_and_a_port_where_nobody_listens(target: Path) -> None:
    with pytest.raises(SourceUnavailable, match="nowhere"):
        get("http://missing.test/", target, resolve=Names())
    with site(lambda e: None) as there:
        closed = there.url()
    with pytest.raises(SourceUnavailable, match="cannot be reached"):
        get(closed, target)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_says_so(target: Path) -> None:
    # A link: what is removed afterwards is that, never the device.
    target.with_name("source.part").symlink_to("/dev/full")
    with site(lambda e: e.answer(body=BODY)) as there, pytest.raises(OutOfSpace):
        get(there.url(), target)
    assert Path("/dev/full").exists()


def test_what_stood_there_before_stays_when_the_fetch_fails(target: Path) -> None:
    target.write_bytes(b"before")
    with site(lambda e: cut_off(e, None)) as there, pytest.raises(SourceUnavailable):
        get(there.url(), target)
    assert target.read_bytes() == b"before"


def test_who_stops_it_leaves_nothing(target: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with site(lambda e: e.answer(body=BODY)) as there, pytest.raises(KeyboardInterrupt):
        fetch(there.url(), target, max_bytes=1 << 20, timeout_s=60, allow_networks=HERE, on_progress=stop)
    assert not target.exists()


def test_tls_verifies_the_name_although_the_address_is_dialled(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(files_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    with site(lambda e: e.answer(body=BODY), tls=True) as there:
        connection._tls.cache_clear()
        with pytest.raises(SourceRefused, match="certificate"):
            get(there.url(host="files.test"), target, resolve=names)
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        connection._tls.cache_clear()
        try:
            assert get(there.url(host="files.test"), target, resolve=names).size_bytes == len(BODY)
            with pytest.raises(SourceRefused, match="certificate"):
                get(there.url(host="other.test"), target, resolve=names)
        finally:
            connection._tls.cache_clear()


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="call.mp3"', "call.mp3"),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.wav", "€ rates.wav"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\temp\\\\a.wav"', "a.wav"),
        ("attachment", "call.wav"),
        ("attachment; filename*=no-such-charset''x.wav", "x.wav"),
        ('attachment; filename=".."', "source"),
    ],
)
def test_a_name_is_taken_from_the_server_and_made_safe(target: Path, disposition: str, name: str) -> None:
    with site(lambda e: e.answer(body=b"x", content_disposition=disposition)) as there:
        assert get(there.url(), target).filename == name


@given(st.text())
def test_a_safe_name_is_one_name_in_a_folder(name: str) -> None:
    safe = safe_filename(name)
    assert safe and safe == Path(safe).name and safe not in (".", "..") and not safe.startswith(".")
    assert len(safe.encode()) <= 255 and safe.isprintable() and "\\" not in safe


def test_a_long_name_keeps_its_ending() -> None:
    assert safe_filename("é" * 300 + ".wav").endswith("é.wav")
    assert safe_filename("\x00\x1f") == safe_filename("a/\x00/") == "source"


def test_a_disk_that_takes_a_part_of_the_last_bytes_is_full(target: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with site(lambda e: e.answer(body=bytes(1500))) as there, pytest.raises(OutOfSpace):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a write beyond is short, the next one fails
        try:
            get(there.url(), target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
