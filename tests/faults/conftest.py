from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.helpers import long_file


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred seconds of speech: a dozen windows."""
    return long_file(tmp_path_factory.mktemp("media"), copies=2)
