from __future__ import annotations

from pathlib import Path

import pytest

from callreel.measure.synthetic import write_weights

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def toy() -> Path:
    """A real model, whose tokenizer and vocabulary synthetic weights borrow."""
    return DATA / "whisper-toy"


@pytest.fixture(scope="session")
def audio() -> Path:
    return DATA / "audio"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> Path:
    """Synthetic weights of the tiny shape."""
    return write_weights("tiny", tmp_path_factory.mktemp("synthetic") / "tiny", tokenizer_from=toy)
