"""Callreel records calls, rewinds them, and writes down every word."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callreel.client import Client as Client

__all__ = ["Client", "__version__"]
__version__ = version("callreel")


def __getattr__(name: str) -> Any:
    """`callreel.Client`, when it is wanted: every command and child process imports this package first."""
    if name == "Client":
        from callreel.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
