"""Whatever is sent to whichever route: what was asked for, or a refusal in the one shape; never a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callreel.measure.harness import ServerProcess
from callreel.server.answers import OPENAI_PATHS
from tests.server.helpers import caller

NAMES = ("q", "limit", "cursor", "state", "label", "from", "format", "edited", "max_cue_s", "transcript_id", "pass")
FIELDS = ("name", "role", "title", "labels", "speakers", "text", "speaker", "url", "events", "language", "external_id")
KINDS = ("application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain", "")

text = st.text(max_size=30) | st.sampled_from(["", "0", "-1", "1e400", "\0", "\ud800", "../..", "a:b:1", "é" * 300])
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
body = (
    st.binary(max_size=100)
    | value.map(lambda v: json.dumps(v).encode())
    | st.dictionaries(st.sampled_from(FIELDS) | text, value, max_size=4).map(lambda v: json.dumps(v).encode())
    | st.tuples(st.sampled_from(FIELDS), st.binary(max_size=50)).map(
        lambda part: (
            b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n--x--\r\n' % (part[0].encode(), part[1])
        )
    )
)


@pytest.fixture(scope="module")
def root(guarded: ServerProcess, client_keys: dict[str, str]) -> Iterator[httpx.Client]:
    with caller(guarded, client_keys["root"]) as client:
        yield client


@pytest.fixture(scope="module")
def routes(root: httpx.Client) -> list[tuple[str, str, list[str]]]:
    """Method, path and the names of the parameters."""
    paths: dict[str, dict[str, Any]] = root.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path, [one["name"] for one in route.get("parameters", ()) if one["in"] == "query"])
        for path, methods in paths.items()
        for method, route in methods.items()
    ]


def escaped(part: str) -> str:
    return quote(part.encode("utf-8", "surrogatepass"), safe="")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_nothing_that_is_sent_is_a_fault(
    guarded: ServerProcess, root: httpx.Client, routes: list[tuple[str, str, list[str]]], data: st.DataObject
) -> None:
    method, path, known = data.draw(st.sampled_from(routes))
    while "{" in path:
        head, _, rest = path.partition("{")
        path = head + (escaped(data.draw(text)) or "none") + rest.partition("}")[2]
    names = st.sampled_from(known or NAMES)  # with an unknown one, little of the rest is looked at
    query = data.draw(st.lists(st.tuples(names, text), max_size=3) | st.just([("bogus", "1")]))
    url = path + "?" + "&".join(f"{name}={escaped(said)}" for name, said in query)
    content = data.draw(body) if method in ("POST", "PATCH", "PUT") else b""
    answer = root.request(method, url, content=content, headers={"Content-Type": data.draw(st.sampled_from(KINDS))})
    assert answer.status_code < 500, (method, url, content, answer.text)
    if answer.status_code >= 400:
        shape = {"code", "message", "hint", "detail"}
        if any(path == openai or path.startswith(f"{openai}/") for openai in OPENAI_PATHS):
            shape = {"message", "type", "param", "code"}
        assert set(answer.json()["error"]) == shape, (method, url, answer.text)
