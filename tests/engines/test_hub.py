from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from callreel.engines import hub
from tests.engines.fake_hub import Hub

PROMISED_S = 3.0


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "HF_ENDPOINT":
            monkeypatch.delenv(name)
    hub.forget()
    yield
    hub.forget()


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that takes a connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def full() -> Iterator[str]:
    """A host whose queue is full, so that connecting to it hangs, as where a firewall swallows packets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(8):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for one in waiting:
            one.close()


def asked(url: str, proxy: str | None = None, *, timeout_s: float = 0.3) -> bool:
    began = time.monotonic()
    answer = hub.reachable(url, proxy, timeout_s=timeout_s)
    assert time.monotonic() - began < PROMISED_S
    return answer


def test_one_that_answers(toy_model: Path) -> None:
    with Hub(toy_model) as near:
        assert asked(near.url, timeout_s=hub.TIMEOUT_S)
        assert asked("http://hub.invalid", near.url, timeout_s=hub.TIMEOUT_S)  # through a proxy


def test_one_that_refuses_is_not_waited_for() -> None:
    assert not asked("http://127.0.0.1:1", timeout_s=1000.0)


def test_one_that_never_answers(silent: str) -> None:
    assert not asked(silent)


def test_a_black_hole(full: str) -> None:
    assert not asked(full, timeout_s=hub.TIMEOUT_S)
    assert not asked("http://hub.invalid", full)


def test_a_name_that_nobody_knows() -> None:
    assert not asked("http://no-such-host.invalid")


def test_a_name_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()

    def stuck(*_: object, **__: object) -> list[object]:
        let_go.wait()
        raise OSError("at last")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    try:
        assert not asked("http://slow.invalid")
    finally:
        let_go.set()


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://somewhere", "http://[", ""])
def test_what_is_no_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert not asked(url)


def test_an_answer_is_remembered(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub(toy_model) as near:
        assert asked(near.url, timeout_s=hub.TIMEOUT_S)
        url = near.url
    assert asked(url)  # though it is gone
    hub.forget()
    assert not asked(url)


def test_which_hub_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.hub_url(None) == "https://huggingface.co"
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror/")
    assert hub.hub_url(None) == "http://mirror"
    assert hub.hub_url("http://ours/") == "http://ours"
