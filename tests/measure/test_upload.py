from __future__ import annotations

import pytest

from callreel.measure import upload


@pytest.mark.slow
def test_copies_and_uploads_take_turns() -> None:
    result = upload.run(megabytes=1.0, iterations=2)
    assert result["bytes"] == 1_000_000
    assert len(result["copy_s"]) == len(result["upload_s"]) == 2
    assert result["target_s"] == pytest.approx(2 * result["copy_s_median"] + 0.5, abs=0.001)
    assert result["upload_s_median"] > 0
    assert "1 MB: cp" in upload.report(result)
