from __future__ import annotations

import threading

from callreel.measure.profile import Profiled


def burn_here() -> int:
    return sum(i * i for i in range(20_000))


def burn_there() -> int:
    return sum(i * i for i in range(20_000))


def test_threads_begun_inside_are_seen_too() -> None:
    with Profiled() as profiled:
        burn_here()
        thread = threading.Thread(target=burn_there)
        thread.start()
        thread.join()
    burn_outside = threading.Thread(target=burn_there)
    burn_outside.start()
    burn_outside.join()
    table = profiled.costliest()
    assert "burn_here" in table and "burn_there" in table
    assert "to 1 due to restriction" in profiled.costliest(1)


def test_unwanted_it_costs_nothing() -> None:
    with Profiled(wanted=False) as profiled:
        burn_here()
    assert profiled.costliest() == ""
