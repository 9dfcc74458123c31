"""Labels: what a client notes about its calls, a name and a line of text each, to find them by."""

from __future__ import annotations

import re
from collections.abc import Mapping

from callreel.errors import InvalidInput
from callreel.storage.fulltext import plain

MOST_LABELS = 64  # of a call
MOST_VALUE = 500  # characters
_NAME = re.compile(r"[\w.:/-]{1,64}")


def merged(labels: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """`labels` with `changes`, of which None takes one away.

    Raises InvalidInput for names and values that cannot be, and for too many.
    """
    require_names(changes)
    for name, value in changes.items():
        if value is not None and (len(value) > MOST_VALUE or plain(value) != value):
            raise InvalidInput(f"A label is a line of at most {MOST_VALUE} characters.", field="labels", label=name)
    found = {name: value for name, value in {**labels, **changes}.items() if value is not None}
    if len(found) > MOST_LABELS:
        raise InvalidInput(f"A call has at most {MOST_LABELS} labels.", field="labels")
    return found


def require_names(labels: Mapping[str, object]) -> None:
    """Raise InvalidInput for what is no name of a label: 1 to 64 letters, digits, and . : / - _"""
    for name in labels:
        if not _NAME.fullmatch(name):
            said = "The name of a label has 1 to 64 letters, digits, and . : / - _"
            raise InvalidInput(said, field="labels", label=name[:64])
