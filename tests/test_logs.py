"""Logging: one form for every process, a request's id in each of its records."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from callreel import logs

log = logging.getLogger("callreel.server")


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(logs.LEVEL, "")  # so that what `set_up` sets is unset again
    monkeypatch.setenv(logs.AS_JSON, "")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_has_time_logger_level_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", as_json=False)
    log.debug("too small")
    log.info("ready on port %d", 8125)
    log.warning("a job", extra={"job_id": "j1"})
    first, second = lines(capsys)
    assert first[10] == "T" and first.split(" ", 1)[1] == "callreel.server INFO ready on port 8125"
    assert second.endswith("callreel.server WARNING a job job_id=j1")


def test_what_strangers_send_begins_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", as_json=False)
    log.info("GET /%s", "a\n2026-01-01T00:00:00Z callreel.server ERROR forged\x1b[2J\u2028\x85", extra={"id": "b\r\nc"})
    (line,) = lines(capsys)
    assert line.endswith(r"GET /a\n2026-01-01T00:00:00Z callreel.server ERROR forged\x1b[2J\u2028\x85 id=b\r\nc")


def test_json_has_a_record_a_line_tracebacks_and_all(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("debug", as_json=True)
    log.debug('two\nlines and a "quote"', extra={"seconds": 1.5})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, lines(capsys))
    assert first | {"at": ""} == {
        "at": "",
        "level": "debug",
        "logger": "callreel.server",
        "message": 'two\nlines and a "quote"',
        "seconds": 1.5,
    }
    assert second["level"] == "error" and second["error"].endswith("ValueError: no")


def test_records_of_a_request_carry_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", as_json=True)
    token = logs.request_id.set("r-7")
    log.info("inside")
    logs.request_id.reset(token)
    log.info("outside")
    inside, outside = map(json.loads, lines(capsys))
    assert inside["request_id"] == "r-7" and "request_id" not in outside


def test_others_go_the_same_way_and_say_less(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", as_json=False)
    logging.getLogger("httpx").info("GET https://user:secret@example.org/")
    logging.getLogger("uvicorn.error").warning("invalid request")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("old", UserWarning, stacklevel=1)
    invalid, warned = lines(capsys)[:2]
    assert "uvicorn.error WARNING invalid request" in invalid and "py.warnings WARNING" in warned
    logs.set_up("error", as_json=False)
    logging.getLogger("httpx").warning("not even that")
    assert lines(capsys) == []


def test_a_child_logs_as_its_parent_does() -> None:
    logs.set_up("debug", as_json=True)
    child = "import logging; from callreel import logs; logs.inherit(); logging.getLogger('callreel.job').debug('on')"
    said = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stderr
    assert json.loads(said)["message"] == "on"
