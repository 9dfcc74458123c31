"""The model hub: where it is, and whether it can be reached, found out quickly."""

from __future__ import annotations

import os
import threading
import time

HUB_URL = "https://huggingface.co"
TIMEOUT_S = 1.5  # of the 3 s in which a command must know; a slower hub would be no joy to download from
REMEMBERED_S = 60.0
NOT_LET_THROUGH = (403, 407, 451)  # what a firewall or a proxy says in the hub's place

_answers: dict[tuple[str, str | None], tuple[float, bool]] = {}  # by hub and proxy: until when it holds, the answer
_lock = threading.Lock()


def hub_url(given: str | None) -> str:
    """The hub in use: the one given, else the hub client's own variable, else the public one."""
    return (given or os.environ.get("HF_ENDPOINT") or HUB_URL).rstrip("/")


def reachable(url: str | None = None, proxy: str | None = None, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Does the hub answer? Known within `timeout_s` whatever the network does, and remembered for a minute."""
    key = (hub_url(url), proxy)
    with _lock:
        until, answer = _answers.get(key, (0.0, False))
    if time.monotonic() < until:
        return answer
    asking = _Question()
    threading.Thread(target=_ask, args=(*key, timeout_s, asking), name="hub", daemon=True).start()
    asking.over.wait(timeout_s)  # the thread may hang on: looking a name up has no timeout of its own
    answer = asking.answered
    with _lock:
        _answers[key] = (time.monotonic() + REMEMBERED_S, answer)
    return answer


def forget() -> None:
    """Ask anew next time: the network has changed."""
    with _lock:
        _answers.clear()


class _Question:
    def __init__(self) -> None:
        self.over = threading.Event()
        self.answered = False


def _ask(url: str, proxy: str | None, timeout_s: float, asking: _Question) -> None:
    import httpx

    try:
        with httpx.Client(proxy=proxy, timeout=timeout_s) as client:
            status = client.head(url).status_code
            asking.answered = status < 500 and status not in NOT_LET_THROUGH
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        pass  # refused, unknown, no address
    finally:
        asking.over.set()
