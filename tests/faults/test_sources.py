"""Sources by URL: what leads inside is refused by name, what is slow or huge ends, what may pass is tried again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from callreel.measure.harness import ServerProcess, wait_for
from tests.faults.scene import WITHIN_S, files
from tests.net.sites import Exchange, site
from tests.server.helpers import TOY_AUDIO, UPLOAD_LIMIT, caller, served

FETCH_S = 1.5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with served(tmp_path_factory.mktemp("strict")) as server:
        yield server


@pytest.fixture(scope="module")
def open_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that may fetch from this machine, but from no other private address."""
    allowed = {"CALLREEL_SOURCES_ALLOW_NETWORKS": "127.0.0.0/8,::1/128", "CALLREEL_SOURCES_TIMEOUT_S": str(FETCH_S)}
    with served(tmp_path_factory.mktemp("open"), **allowed) as server:
        yield server


def post(server: ServerProcess, url: str) -> httpx.Response:
    with caller(server) as api:
        return api.post("/v1/jobs", json={"url": url})


def ended(server: ServerProcess, url: str) -> dict[str, Any]:
    made = post(server, url)
    assert made.status_code == 202, made.text
    job = server.finished_job(made.json()["id"])
    if job["state"] == "failed":
        wait_for(lambda: not list((server.data / "work").iterdir()), WITHIN_S, "nothing of it is left")
        assert not [path for path in files(server.data) if job["call_id"] in path]
    return job


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://127.0.0.1:{port}/call.wav", 403, "address_not_allowed"),
        ("http://localhost:{port}/call.wav", 403, "address_not_allowed"),
        ("http://localhost.:{port}/call.wav", 403, "address_not_allowed"),
        ("http://LOCALHOST:{port}/call.wav", 403, "address_not_allowed"),
        ("http://2130706433:{port}/", 403, "address_not_allowed"),
        ("http://0x7f.1:{port}/", 403, "address_not_allowed"),
        ("http://[::1]:{port}/", 403, "address_not_allowed"),
        ("http://[::ffff:127.0.0.1]:{port}/", 403, "address_not_allowed"),
        ("http://0.0.0.0:{port}/", 403, "address_not_allowed"),
        ("http://10.0.0.1/call.wav", 403, "address_not_allowed"),
        ("http://192.168.1.1/call.wav", 403, "address_not_allowed"),
        ("http://169.254.169.254/latest/meta-data/", 403, "address_not_allowed"),
        ("http://user@127.0.0.1:{port}/", 403, "address_not_allowed"),
        ("file:///etc/passwd", 400, "invalid_input"),
        ("ftp://127.0.0.1/a.wav", 400, "invalid_input"),
        ("gopher://127.0.0.1:6379/_x", 400, "invalid_input"),
        ("http:///etc/passwd", 400, "invalid_input"),
        ("nonsense", 400, "invalid_input"),
    ],
)
def test_what_leads_inside_is_refused_at_once(strict: ServerProcess, url: str, status: int, code: str) -> None:
    with site(lambda e: e.answer(body=b"inside")) as there:
        refused = post(strict, url.format(port=there.server_port))
        assert there.seen == []
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (status, code)
    assert status != 403 or "allow_networks" in error["hint"]
    assert files(strict.data) == set()


def test_a_name_that_leads_inside_fails_the_job(strict: ServerProcess) -> None:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's name leads nowhere")
    with site(lambda e: e.answer(body=b"inside")) as there:
        job = ended(strict, f"http://{name}:{there.server_port}/call.wav")
        assert there.seen == []
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 1, "address_not_allowed"), address


def test_where_it_is_allowed_it_works(open_: ServerProcess) -> None:
    body = (TOY_AUDIO / "en_short.wav").read_bytes()
    with site(lambda e: e.answer(body=body)) as there:
        for host in ("127.0.0.1", "localhost"):
            assert ended(open_, there.url(host=host))["state"] == "succeeded"


@pytest.mark.parametrize("location", ["http://10.1.2.3/a.wav", "http://[fd00::1]/a.wav", "http://169.254.169.254/"])
def test_a_redirect_inside_is_not_followed(open_: ServerProcess, location: str) -> None:
    with site(lambda e: e.redirect(location)) as there:
        job = ended(open_, there.url())
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 1, "address_not_allowed")


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_not_followed(open_: ServerProcess, location: str) -> None:
    with site(lambda e: e.redirect(location)) as there:
        job = ended(open_, there.url())
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 1, "invalid_input")


@pytest.mark.parametrize("told", [True, False], ids=["said before", "never said"])
def test_a_huge_body_is_cut_off(open_: ServerProcess, told: bool) -> None:
    def answer(exchange: Exchange) -> None:
        length = {"content_length": str(100 * UPLOAD_LIMIT)} if told else {}
        exchange.send_response(200)
        for name, value in length.items():
            exchange.send_header(name.replace("_", "-"), value)
        exchange.end_headers()
        exchange.close_connection = True
        try:
            while True:
                exchange.wfile.write(bytes(1 << 20))
        except OSError:
            pass

    with site(answer) as there:
        job = ended(open_, there.url())
    assert (job["state"], job["attempts"], job["error"]["code"]) == ("failed", 1, "too_large")


def test_a_source_that_trickles_ends_by_the_deadline(open_: ServerProcess) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.end_headers()
        exchange.wfile.write(b"RIFF")
        exchange.wait_until_hung_up()

    with site(trickle) as there:
        job = ended(open_, there.url())
    assert (job["state"], job["error"]["code"]) == ("failed", "source_unavailable")
    assert job["error"]["detail"]["overdue"] and job["attempts"] == 3


def test_a_source_that_is_busy_once_is_asked_again(open_: ServerProcess, tmp_path: Path) -> None:
    body = (TOY_AUDIO / "en_short.wav").read_bytes()

    def busy_once(exchange: Exchange) -> None:
        if len(exchange.server.seen) == 1:
            exchange.answer(503, b"later")
        else:
            exchange.answer(body=body)

    with site(busy_once) as there:
        job = ended(open_, there.url())
        assert len(there.seen) == 2
    assert (job["state"], job["attempts"]) == ("succeeded", 2)
