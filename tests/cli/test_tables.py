"""Tables and sizes for people."""

from __future__ import annotations

import click
import pytest

from callreel.cli.tables import size, table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("a", "1", "x"), (click.style("long", fg="red"), "100", "")]
    shown = table(rows, head=("name", "n", ""), right=(1,))
    assert click.unstyle(shown).splitlines() == ["name    n", "a       1  x", "long  100"]
    assert table([]) == "" and table([], head=("a", "b")) == "a  b"


@pytest.mark.parametrize(
    ("bytes", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (145_000_000, "145 MB"),
        (3_090_000_000, "3.1 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes(bytes: float, said: str) -> None:
    assert size(bytes) == said
