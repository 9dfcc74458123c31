"""Callreel records calls, rewinds them, and writes down every word."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("callreel")
