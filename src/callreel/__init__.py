"""Callreel records calls, rewinds them, and writes down every word."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callreel.client import Client as Client

__all__ = ["Client", "__version__"]
__version__ = version("callreel")

# Recordings are nobody's business, and neither is that there are any. What ONNX Runtime and the hub's client would
# report of their use to their makers is switched off in every process, before either is imported.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1")


def __getattr__(name: str) -> Any:
    """`callreel.Client`, when it is wanted: every command and child process imports this package first."""
    if name == "Client":
        from callreel.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
