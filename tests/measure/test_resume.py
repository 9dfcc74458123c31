from __future__ import annotations

from pathlib import Path

import pytest

from callreel.measure import resume


@pytest.mark.slow
def test_a_killed_job_goes_on_and_says_the_same(audio: Path, toy: Path) -> None:
    result = resume.run(audio, toy, minutes=4.0, victims=("job",), profile="fast")
    (killed,) = result["results"]
    assert killed["state"] == "succeeded" and killed["attempts"] == 2
    assert killed["same_text"] and result["undisturbed"]["words"] > 200
    assert killed["at_percent"] >= 80 and killed["share_of_cpu"] > 0
    assert "same" in resume.report(result)
