"""What every error tells: its name, what went wrong, what to do next."""

from __future__ import annotations

import pytest

from callreel import errors
from callreel.errors import CallreelError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CallreelError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_says_what_to_do_next(kind: type[CallreelError]) -> None:
    for error in (kind(), kind("It went wrong"), CallreelError.of({"code": kind.code})):
        told = error.as_dict()
        assert told["code"] == kind.code and told["message"] and told["hint"], told


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_is_read_back_is_the_same(kind: type[CallreelError]) -> None:
    error = CallreelError.of(kind("It hurts", hint="Rest", field="arm").as_dict())
    assert (type(error), str(error), error.hint, error.detail) == (kind, "It hurts", "Rest", {"field": "arm"})
