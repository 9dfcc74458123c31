"""The server that a command talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callreel.client import Client
    from callreel.settings import Settings


def url_of(settings: Settings) -> str:
    """`url`, or where a server with these settings listens on this machine."""
    if settings.url:
        return settings.url
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def connect(settings: Settings) -> Client:
    from callreel.client import Client

    return Client(url_of(settings), settings.key)
