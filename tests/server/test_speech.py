"""From what is asked for to a model on this machine: fetched once, told of, done without where that may be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from callreel.engines import hub as reach
from callreel.engines import shelf
from callreel.errors import EngineUnavailable, ModelMissing
from callreel.server.pool import EnginePool, PoolLimits
from callreel.server.speech import Speech
from callreel.settings import Models, Settings
from tests.engines.fake_hub import Hub

NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("HF_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    reach.forget()


@pytest.fixture
def hub(toy_model: Path) -> Iterator[Hub]:
    with Hub(toy_model) as hub:
        yield hub


def speech(folder: Path, url: str, engine: str = "auto", *, download: bool = True) -> Speech:
    models = Models(dir=folder, hub_url=url, download=download)
    settings = Settings(data_dir=folder, engine=engine, model="base", models=models)
    return Speech(settings, EnginePool(folder, PoolLimits(1 << 40)))


async def ignored(_: float) -> None:
    pass


def test_a_model_that_many_want_is_fetched_once_and_all_are_told(tmp_path: Path, hub: Hub) -> None:
    percents: list[float] = []

    async def told(percent: float) -> None:
        percents.append(percent)

    async def main() -> None:
        s = speech(tmp_path, hub.url)
        found = await asyncio.gather(*(s.resolve(None, None, told) for _ in range(3)))
        assert {spec.engine for spec, _ in found} == {"whisper"} and not any(warnings for _, warnings in found)

    asyncio.run(main())
    assert shelf.find("base", tmp_path) is not None
    assert len(percents) >= 3 and percents == sorted(percents)
    assert [name for name, _ in hub.asked].count("model.bin") == 1


def test_without_a_hub_auto_does_without_and_whisper_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        spec, warnings = await speech(tmp_path, NOBODY).resolve(None, None, ignored)
        assert spec.engine == "pocketsphinx" and "callreel models pull base" in warnings[0]
        with pytest.raises(EngineUnavailable):
            await speech(tmp_path, NOBODY, "whisper").resolve(None, None, ignored)
        with pytest.raises(ModelMissing, match="not on this machine"):
            await speech(tmp_path, NOBODY, "whisper", download=False).resolve(None, None, ignored)
        with pytest.raises(ModelMissing, match="There is no folder"):
            await speech(tmp_path, NOBODY, "whisper").resolve(None, "./nowhere", ignored)

    asyncio.run(main())


def test_a_hub_that_fails_is_done_without(tmp_path: Path, hub: Hub) -> None:
    hub.status = 503

    async def main() -> None:
        spec, warnings = await speech(tmp_path, hub.url).resolve(None, None, ignored)
        assert spec.engine == "pocketsphinx" and "callreel models pull base" in warnings[0]

    asyncio.run(main())


def test_a_download_that_nobody_waits_for_any_more_ends(tmp_path: Path, hub: Hub) -> None:
    hub.stop_after = 1_000_000
    begun = asyncio.Event()

    async def told(_: float) -> None:
        begun.set()

    async def main() -> None:
        waiting = asyncio.create_task(speech(tmp_path, hub.url).resolve(None, None, told))
        async with asyncio.timeout(30):
            await begun.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            while any(t.get_name() == "download-base" for t in asyncio.all_tasks()):  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert not [child for child in psutil.Process().children() if "callreel.engines.fetch" in child.cmdline()]

    asyncio.run(main())
    assert shelf.find("base", tmp_path) is None
