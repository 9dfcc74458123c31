from __future__ import annotations

import pytest

from callreel.errors import ForbiddenAddress, InvalidInput, SourceUnavailable
from callreel.net import Answer, post
from tests.net.sites import HERE, Exchange, site


def test_body_and_headers_arrive() -> None:
    with site(lambda e: e.answer(202, b"thanks")) as there:
        answer = post(there.url("/hook?a=1"), b'{"a": 1}', {"X-Signed": "yes"}, timeout_s=60, allow_networks=HERE)
    assert answer == Answer(202, "thanks") and answer.accepted
    (asked,) = there.seen
    assert (asked.command, asked.path, asked.body) == ("POST", "/hook?a=1", b'{"a": 1}')
    assert asked.headers["X-Signed"] == "yes"


def test_a_refusal_is_an_answer_and_a_redirect_is_one() -> None:
    with site(lambda e: e.answer(500, b"x" * 5000)) as there:
        answer = post(there.url(), b"{}", {}, timeout_s=60, allow_networks=HERE)
    assert (answer.status, len(answer.text), answer.accepted) == (500, 1000, False)
    with site(lambda e: e.redirect("http://127.0.0.1/other")) as there:
        assert post(there.url(), b"{}", {}, timeout_s=60, allow_networks=HERE).status == 302


def test_it_goes_nowhere_inside() -> None:
    with site(lambda e: e.answer()) as there:
        with pytest.raises(ForbiddenAddress):
            post(there.url(), b"{}", {}, timeout_s=60)
        with pytest.raises(InvalidInput):
            post("file:///etc/passwd", b"{}", {}, timeout_s=60)
    assert there.seen == []


def test_who_does_not_answer_is_given_up() -> None:
    def silent(e: Exchange) -> None:
        e.wait_until_hung_up()

    with site(silent) as there, pytest.raises(SourceUnavailable):
        post(there.url(), b"{}", {}, timeout_s=0.2, allow_networks=HERE)
