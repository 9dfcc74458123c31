"""Logging: every process of Callreel writes to standard error, in one form, plain or JSON, one line a record.

`set_up` is for the process that knows the settings; its children find them in their environment (`inherit`).
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

LEVEL, AS_JSON = "CALLREEL_LOG_LEVEL", "CALLREEL_LOG_JSON"  # settings, so that children mean the same by them
CHATTY = ("alembic", "faster_whisper", "hpack", "httpcore", "httpx", "urllib3", "uvicorn.error", "websockets")
OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}  # what no caller added

request_id: ContextVar[str] = ContextVar("request_id", default="")  # of the request that is being answered


def set_up(level: str, *, as_json: bool) -> None:
    """Log everything from `level` (debug, info, warning, error) on, here and in the children started from here."""
    os.environ[LEVEL], os.environ[AS_JSON] = level, "true" if as_json else "false"
    inherit()


def inherit(environment: Mapping[str, str] = os.environ) -> None:
    """Log as the process that started this one does."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = environment.get(AS_JSON, "false").lower() in ("1", "true", "yes", "on")
    handler.setFormatter(JsonLines() if as_json else Lines())
    level = logging.getLevelNamesMapping().get(environment.get(LEVEL, "info").upper(), logging.INFO)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in CHATTY:  # they tell at info what is ours to tell, and whole URLs, which may hold a secret
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


class Lines(logging.Formatter):
    """For people: time, logger, level, message; what the record was given besides, and the request, as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        said = "".join(f" {name}={value}" for name, value in _besides(record).items())
        line = f"{_at(record)} {record.name} {record.levelname} {record.getMessage()}{said}"
        return "\n".join([_in_a_line(line), *_traceback(self, record)])


class JsonLines(logging.Formatter):
    """For machines: {at, level, logger, message, request_id?, error?} and what the record was given besides."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_besides(record),
        }
        if traceback := _traceback(self, record):
            said["error"] = "\n".join(traceback)
        return json.dumps(said, ensure_ascii=False, default=str)


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _in_a_line(text: str) -> str:
    """What a stranger sent may be in a message: it begins no line of its own, and commands no terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _besides(record: logging.LogRecord) -> dict[str, Any]:
    said = {name: value for name, value in vars(record).items() if name not in OWN and name != "color_message"}
    if id := request_id.get():
        said["request_id"] = id
    return said


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    found = [formatter.formatException(record.exc_info)] if record.exc_info else []
    return [*found, formatter.formatStack(record.stack_info)] if record.stack_info else found
