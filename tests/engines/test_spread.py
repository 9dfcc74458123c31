from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.engines.spread import split, spread


def test_long_words_take_longer() -> None:
    words = spread([" a", " bbb"], 1.0, 3.0, 0.5)
    assert [(w.word, w.start, w.end, w.probability) for w in words] == [(" a", 1.0, 1.5, 0.5), (" bbb", 1.5, 3.0, 0.5)]


def test_nothing_said() -> None:
    assert spread([], 0.0, 1.0) == spread([" ", ""], 0.0, 1.0) == []
    assert split("  ") == []


@given(st.lists(st.text("ab c", max_size=6), max_size=8), st.floats(0, 100), st.floats(0, 100))
def test_all_words_in_order_and_inside(words: list[str], start: float, length: float) -> None:
    said = spread(words, start, start + length)
    assert [w.word for w in said] == [w for w in words if w.strip()]
    times = [t for w in said for t in (w.start, w.end)]
    assert all(before <= after for before, after in pairwise(times))
    if said:
        assert times[0] == pytest.approx(start, abs=0.001)
        assert times[-1] == pytest.approx(start + length, abs=0.001)
