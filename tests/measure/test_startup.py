from __future__ import annotations

import pytest

from callreel.measure import startup


@pytest.mark.slow
def test_help_and_a_server_start() -> None:
    result = startup.run(iterations=1)
    assert len(result["help_s"]) == len(result["ready_s"]) == 1
    assert result["help_s_median"] > 0 and result["ready_s_median"] > 0
    first, second = startup.report(result).splitlines()
    assert "target 0.4 s" in first and "target 3.0 s" in second
