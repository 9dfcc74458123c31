"""What tests of several rooms share: the toy model, its recordings, and what is said in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import settings as hypothesis_settings

from callreel.engines.base import EngineSpec
from callreel.engines.whisper import WhisperEngine, load

if TYPE_CHECKING:
    from callreel.measure.harness import ServerProcess

# How long an example takes says how busy the machine is, and nothing else.
hypothesis_settings.register_profile("callreel", deadline=None)
hypothesis_settings.register_profile("soak", deadline=None, max_examples=2000)
hypothesis_settings.load_profile("soak" if os.environ.get("CALLREEL_TEST_SOAK") else "callreel")

DATA = Path(__file__).parent / "data"
SHARED_AUDIO = Path(__file__).parents[2] / "shared" / "audio"


@pytest.fixture(scope="session")
def toy_model() -> Path:
    return DATA / "whisper-toy"


@pytest.fixture(scope="session")
def toy_audio() -> Path:
    return DATA / "audio"


@pytest.fixture(scope="session")
def references(toy_audio: Path) -> dict[str, Any]:
    """What is said in each recording: file name -> {language, duration, tracks: {name: {text, utterances}}}."""
    parsed: dict[str, Any] = json.loads((toy_audio / "references.json").read_text())
    return parsed


@pytest.fixture(scope="session")
def toy_engine(toy_model: Path) -> WhisperEngine:
    return load(EngineSpec("whisper", str(toy_model), "models", threads=2))


def missing(reason: str) -> NoReturn:
    """Skip the test for what this machine lacks; where everything must be there, fail."""
    if os.environ.get("CALLREEL_TEST_REQUIRE") == "all":
        pytest.fail(f"{reason}, and CALLREEL_TEST_REQUIRE=all")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """Real recordings, which lie beside the checkout and are not committed."""
    if not SHARED_AUDIO.is_dir():
        missing("the real recordings (../shared/audio) are not on this machine")
    return SHARED_AUDIO


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def server(data_folder: Path) -> Iterator[ServerProcess]:
    """One server for all tests that leave it running; nobody has a key, its stalls are short and its uploads small."""
    from tests.server.helpers import served

    with served(data_folder) as server:
        yield server
