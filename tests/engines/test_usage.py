from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.engines.usage import Bill, Meter, peak_rss_bytes


class Clock:
    def __init__(self) -> None:
        self.at = 5.0

    def __call__(self) -> float:
        return self.at


def test_calls_side_by_side_share_what_is_used() -> None:
    clock = Clock()
    meter = Meter(clock)
    with meter.running() as first:
        clock.at += 1.0
        with meter.running() as second:
            clock.at += 2.0
        clock.at += 4.0
    assert (first.cpu_s, second.cpu_s) == (6.0, 1.0)


def test_what_is_used_between_calls_goes_to_the_next() -> None:
    clock = Clock()
    meter = Meter(clock)
    clock.at += 0.5
    with meter.running() as first:
        pass
    with meter.running() as second:
        pass
    assert (first.cpu_s, second.cpu_s) == (0.5, 0.0)


def test_a_call_that_fails_is_billed_too() -> None:
    clock = Clock()
    meter = Meter(clock)
    with pytest.raises(RuntimeError), meter.running() as bill:
        clock.at += 3.0
        raise RuntimeError
    assert bill.cpu_s == 3.0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10)), max_size=30))
def test_the_sum_is_what_was_used(steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    meter = Meter(clock)
    open_: dict[int, ExitStack] = {}
    bills: list[Bill] = []
    for which, used in steps:
        clock.at += used
        if which in open_:
            open_.pop(which).close()
        else:
            open_[which] = ExitStack()
            bills.append(open_[which].enter_context(meter.running()))
    for stack in open_.values():
        stack.close()
    with meter.running() as last:
        pass
    assert sum(bill.cpu_s for bill in (*bills, last)) == pytest.approx(clock.at - 5.0)


def test_the_peak_is_at_least_what_is_there_now() -> None:
    before = peak_rss_bytes()
    assert before > 10_000_000
    block = np.ones(before, np.uint8)
    assert peak_rss_bytes() > before
    assert peak_rss_bytes() >= psutil.Process().memory_info().rss - 20_000_000
    del block
    assert peak_rss_bytes() > before
