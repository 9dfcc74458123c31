"""Fields and files that came with a request, and what a route makes of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import pydantic
from pydantic import BaseModel

from callreel.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)

HINT = "/docs describes every field"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came whole and is on the disk; whoever keeps it moves it away from `path`."""

    name: str  # of its field
    path: Path
    title: str  # what its sender calls it, cleaned; never a path
    size: int
    sha256: str


@dataclass(slots=True)
class Form:
    """The body of a request. A field may come several times."""

    fields: list[tuple[str, Any]] = field(default_factory=list)
    files: list[Upload] = field(default_factory=list)

    def file(self, name: str = "file") -> Upload:
        """The one file under `name`. Raises InvalidInput where there is none, or more than one."""
        found = [upload for upload in self.files if upload.name == name]
        if len(found) != 1:
            said = "There are several files" if found else "There is no file"
            raise InvalidInput(
                f"{said} in the form", hint=f"Send one as multipart/form-data, as {name!r}", **problem(name, said)
            )
        return found[0]

    def parsed(self, model: type[M]) -> M:
        """The fields as `model`; an empty one counts as not given, as browsers send them. Raises InvalidInput.

        `name[]` is one of several, and `name[key]` part of an object, as many clients send them.
        """
        known = {info.alias or name: info for name, info in model.model_fields.items()}
        given: dict[str, Any] = {}
        for sent, value in self.fields:
            if value == "":
                continue
            name, bracket, key = sent.partition("[")
            if name not in known or (bracket and not key.endswith("]")):
                name, key = sent, ""
            if key := key.removesuffix("]"):
                held = given.get(name)
                given[name] = {**(held if isinstance(held, dict) else {}), key: value}
            elif name in known and _is_list(known[name].annotation) and not isinstance(value, list):
                held = given.get(name)
                given[name] = [*(held if isinstance(held, list) else ()), value]
            else:
                given[name] = value
        try:
            return model.model_validate(given)
        except pydantic.ValidationError as error:
            raise invalid(error.errors(include_url=False), known) from None


def invalid(errors: Iterable[Mapping[str, Any]], known: Iterable[str] = ()) -> InvalidInput:
    """What pydantic found wrong with a request, field by field; a field not `known` is told which one was meant."""
    problems: list[dict[str, str]] = []
    for error in errors:
        name, said = ".".join(map(str, error["loc"])), error["msg"]
        if error["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(name, list(known), n=1)
            said = "There is no such field" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
        problems += problem(name, said)["problems"]
    first = problems[0]
    return InvalidInput(f"{first['field']}: {first['problem']}", hint=HINT, problems=problems)


def problem(name: str, said: str) -> dict[str, list[dict[str, str]]]:
    """The `detail` of a refusal that one field is the reason of."""
    return {"problems": [{"field": name, "problem": said}]}


def described(model: type[BaseModel], *, optional: Collection[str] = (), **files: str) -> dict[str, Any]:
    """The OpenAPI description of a form with the fields of `model` and these files (name -> description)."""
    schema = model.model_json_schema()
    binary = {name: {"type": "string", "format": "binary", "description": said} for name, said in files.items()}
    schema["properties"] = {**binary, **schema["properties"]}
    schema["required"] = [*(name for name in files if name not in optional), *schema.get("required", ())]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple) or any(map(_is_list, get_args(annotation)))
