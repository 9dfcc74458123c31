from __future__ import annotations

import pytest

from callreel.measure import long_file


@pytest.mark.slow
def test_a_short_file_and_one_that_is_longer() -> None:
    result = long_file.run(short_min=0.2, long_min=0.6)
    for label in ("short", "long"):
        found = result[label]
        assert found["state"] == "succeeded"
        assert set(found["peak_bytes"]) == {"job", "batch"}
        assert 50e6 < found["together_bytes"] == sum(found["peak_bytes"].values()) < 2e9
    assert result["difference_bytes"] == result["long"]["together_bytes"] - result["short"]["together_bytes"]
    shown = long_file.report(result)
    assert "0.6 min: " in shown and "target 150" in shown
