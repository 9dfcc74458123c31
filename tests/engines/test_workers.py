from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from callreel.audio.decode import decode
from callreel.engines import frames
from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.catalogue import load
from callreel.engines.pocketsphinx import PocketSphinxEngine
from callreel.engines.process import ABANDONED
from callreel.engines.workers import Workers
from callreel.errors import EngineCrashed, InvalidInput, ModelMissing
from tests.engines import fake_engines
from tests.engines.children import DEADLINE_S, EngineChildren, environment, has_ended, wait_until

ENGLISH = DecodeOptions("en")
SPEC = EngineSpec(fake_engines.NAME, "any", "/nowhere", threads=2)


def window(prompt: str = "", n_samples: int = 160) -> Window:
    return Window(np.zeros(n_samples, np.int16), prompt)


def processes() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "callreel.engines.workers" in process.cmdline():
                found.append(process)
    return found


@pytest.fixture(autouse=True)
def this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers("mine", "any", fake_engines.CAPABILITIES, SPEC)
    yield workers
    workers.close()
    assert processes() == []


def test_it_says_what_its_engine_says(workers: Workers) -> None:
    windows = [window(n_samples=n) for n in (1, 2, 3)]
    assert workers.decode(windows, ENGLISH) == fake_engines.ScriptedEngine("any").decode(windows, ENGLISH)
    assert (workers.name, workers.model, workers.capabilities) == ("mine", "any", fake_engines.CAPABILITIES)


def test_none_is_started_before_it_is_needed_and_it_is_kept(workers: Workers) -> None:
    assert processes() == []
    for _ in range(3):
        workers.decode([window()], ENGLISH)
        assert len(processes()) == 1


def test_they_run_side_by_side_though_each_keeps_its_interpreter(workers: Workers, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(workers.decode, [window(f"hold {tmp_path / name}")], ENGLISH) for name in "abc"]

        def all_given_up() -> bool:
            for process in processes():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return all(call.done() for call in calls)

        try:
            wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 2, "two have begun")
            assert len(processes()) == 2  # the third waits for its turn
        finally:  # else the pool would wait for ever
            wait_until(all_given_up, "each has lost its processes")
        assert all(isinstance(call.exception(), EngineCrashed) for call in calls)


def test_errors_are_passed_on_and_the_process_is_kept(workers: Workers) -> None:
    with pytest.raises(InvalidInput, match="no speech"):
        workers.decode([window("refuse")], ENGLISH)
    assert len(processes()) == 1


def test_one_death_is_forgiven_and_many_are_not(workers: Workers, tmp_path: Path) -> None:
    assert workers.decode([window(f"die_once {tmp_path / 'died'}")], ENGLISH)
    with pytest.raises(EngineCrashed):
        workers.decode([window("die")], ENGLISH)
    assert workers.decode([window()], ENGLISH)


def test_a_model_that_does_not_load_is_heard_of() -> None:
    missing = EngineSpec(fake_engines.NAME, "missing", "/nowhere")
    with pytest.raises(ModelMissing, match="gone for a walk"):
        Workers("mine", "missing", fake_engines.CAPABILITIES, missing).decode([window()], ENGLISH)
    assert processes() == []


def test_what_they_use_is_known(workers: Workers) -> None:
    workers.decode([window("burn 0.2")], ENGLISH)
    assert 0.2 <= workers.cpu_s < 0.6
    assert workers.peak_rss_bytes > 10_000_000


def test_who_forgets_to_close_leaves_nobody() -> None:
    workers = Workers("mine", "any", fake_engines.CAPABILITIES, SPEC)
    workers.decode([window()], ENGLISH)
    assert len(processes()) == 1
    del workers
    wait_until(lambda: processes() == [], "they have ended")


def test_pocketsphinx_says_the_same_there(toy_audio: Path, tmp_path: Path) -> None:
    heard = Window(np.concatenate(list(decode(toy_audio / "en_short.wav"))))
    engine = load(EngineSpec("pocketsphinx", "en-us", "/nowhere", threads=2))
    assert isinstance(engine, Workers)
    assert engine.capabilities.parallel == 2
    assert engine.decode([heard], ENGLISH) == PocketSphinxEngine().decode([heard], ENGLISH)
    engine.close()


def test_a_pocketsphinx_decode_that_nobody_waits_for_stops(toy_audio: Path, tmp_path: Path) -> None:
    long = Window(np.resize(np.concatenate(list(decode(toy_audio / "en_long_50s.flac"))), 30 * 16_000))
    with EngineChildren(tmp_path, EngineSpec("pocketsphinx", "en-us", "/nowhere", threads=1)) as children:
        abandoned = children.process
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(DEADLINE_S)
            caller.connect(str(children.path))
            frames.receive(caller)
            caller.sendall(frames.pack(frames.Request.of([long] * 20, ENGLISH)))
            wait_until(lambda: bool(psutil.Process(abandoned.pid).children()), "it has begun")
            (worker,) = psutil.Process(abandoned.pid).children()
        wait_until(lambda: children.deaths == 1, "the end of the abandoned work")
        assert abandoned.returncode == ABANDONED
        wait_until(lambda: has_ended(worker.pid), "the end of its process")
