"""Fields as clients send them: several under one name, some in brackets, some of JSON."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from callreel.errors import InvalidInput
from callreel.server.forms import Form


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = ""
    many: list[str] = []
    thing: dict[str, str] | str | None = None


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([("many", "a"), ("many", "b")], {"many": ["a", "b"]}),
        ([("many[]", "a"), ("many", "b"), ("many[]", "")], {"many": ["a", "b"]}),
        ([("many", ["a", "b"])], {"many": ["a", "b"]}),
        ([("thing[x]", "1"), ("thing[y]", "2")], {"thing": {"x": "1", "y": "2"}}),
        ([("thing", "auto"), ("thing[x]", "1")], {"thing": {"x": "1"}}),
        ([("name", "")], {"name": ""}),
    ],
)
def test_fields_become_a_model(fields: list[tuple[str, Any]], found: dict[str, Any]) -> None:
    assert Form(fields).parsed(Asked).model_dump(exclude_unset=True) == {k: v for k, v in found.items() if v}


@pytest.mark.parametrize("name", ["nam", "nam[]", "name[", "many[a]b", "[]", "[x]"])
def test_other_names_are_refused_as_they_were_sent(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Form([(name, "x")]).parsed(Asked)
    assert refused.value.detail["problems"][0]["field"] == name
