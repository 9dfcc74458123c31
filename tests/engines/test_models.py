from __future__ import annotations

import pytest

from callreel.engines.models import MODELS, known, nearest
from callreel.engines.shelf import REPOSITORY

ASKED_FOR = """
tiny tiny.en base base.en small small.en medium medium.en large-v3 large-v3-turbo distil-large-v3.5
"""


def test_all_names_are_there() -> None:
    assert [model.name for model in MODELS] == ASKED_FOR.split()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_what_is_said_of_each_is_plausible(model) -> None:  # type: ignore[no-untyped-def]
    assert REPOSITORY.fullmatch(model.repository)
    assert 1.9 <= model.download_bytes / model.parameters <= 2.1  # float16
    assert model.ram_bytes > model.parameters
    assert model.vram_bytes > 2 * model.parameters
    assert 1 <= model.speed <= 10
    assert model.use_case
    assert (model.languages == 1) == (model.name.endswith(".en") or model.name.startswith("distil"))


def test_they_are_known_by_other_names_too() -> None:
    for name in ("large-v3-turbo", "turbo", "Turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"):
        model = known(name)
        assert model is not None
        assert model.name == "large-v3-turbo"
    assert known("large") is known("large-v3")
    assert known("tinny") is None


def test_the_nearest_name() -> None:
    assert nearest("smal") == "small"
    assert nearest("Large-V2") == "large-v3"
    assert nearest("oor-model", ["our-model"]) == "our-model"
    assert nearest("xyzzy") is None
