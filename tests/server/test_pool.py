"""Engine processes over their lives: loaded once a class, kept while wanted, gone when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from callreel.engines.base import EngineSpec
from callreel.engines.remote import RemoteEngine
from callreel.errors import ModelMissing
from callreel.server import pool as module
from callreel.server.pool import EnginePool, Lease, PoolLimits
from tests.engines.fake_engines import NAME
from tests.server.helpers import TOY_MODEL, is_gone

DEADLINE_S = 60.0
PLENTY = 64 << 30


def scripted(model: str) -> EngineSpec:
    return EngineSpec(NAME, model, "models")


TOY = EngineSpec("whisper", str(TOY_MODEL), "models", threads=1)


@asynccontextmanager
async def pool(folder: Path, memory: int = PLENTY, **limits: Any) -> AsyncIterator[EnginePool]:
    made = EnginePool(folder, PoolLimits(memory, **limits))
    made.start()
    try:
        yield made
    finally:
        await made.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  of processes: nobody tells us
            await asyncio.sleep(0.02)


async def loaded(lease: Lease) -> str:
    """Wait for the engine and its model."""
    remote = await asyncio.to_thread(RemoteEngine, lease.path)
    remote.close()
    return remote.model


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def engines(ours: psutil.Process) -> list[psutil.Process]:
    return [child for child in ours.children() if "callreel.engines.process" in " ".join(child.cmdline())]


def test_one_class_loads_a_model_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(tmp_path) as p, p.lease("batch", scripted("a")) as first, p.lease("batch", scripted("a")) as b:
            assert first.path == b.path
            async with p.lease("live", scripted("a")) as live:
                assert live.path != first.path
                assert await loaded(first) == await loaded(live) == "a"
                assert set(p.memory()) == {("batch", "a"), ("live", "a")}
                assert len(engines(psutil.Process())) == 2

    asyncio.run(main())


def test_what_is_idle_for_long_gives_its_memory_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(tmp_path, idle_s=0.2) as p:
            async with p.lease("batch", TOY) as lease:
                assert await loaded(lease) == "whisper-toy"
                (process,) = engines(psutil.Process())
                assert sum(p.memory().values()) == pytest.approx(process.memory_info().rss, rel=0.2)
                assert process.memory_info().rss > 40 << 20
            await until(lambda: not p.memory())
            await until(lambda: is_gone(process))
            assert not names(tmp_path)

    asyncio.run(main())


def test_what_is_used_is_not_unloaded_however_idle_the_limit(tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(tmp_path, idle_s=0.0) as p, p.lease("batch", scripted("a")) as lease:
            async with p.lease("batch", scripted("b")):
                pass
            await until(lambda: set(p.memory()) == {("batch", "a")})
            assert await loaded(lease) == "a"

    asyncio.run(main())


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(tmp_path, max_loaded=2, unload="never") as p:
            for model in ("a", "b", "a", "c"):
                async with p.lease("batch", scripted(model)):
                    pass
            assert set(p.memory()) == {("batch", "a"), ("batch", "c")}

    asyncio.run(main())


def test_after_use_means_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(tmp_path, unload="after_use") as p:
            async with p.lease("batch", scripted("a")), p.lease("batch", scripted("a")):
                assert set(p.memory()) == {("batch", "a")}
            assert not p.memory()

    asyncio.run(main())


def test_models_on_a_gpu_share_its_memory(tmp_path: Path) -> None:
    async def main() -> None:
        # Large enough for two that nobody knows, whatever their class; on the CPU there is room for more.
        card = 2 * module.UNMEASURED_GPU_BYTES
        async with pool(tmp_path, unload="never", gpu_memory=card) as p, p.lease("live", scripted("a")):
            for model in ("b", "c"):
                async with p.lease("batch", scripted(model)):
                    pass
            assert set(p.memory()) == {("live", "a"), ("batch", "c")}
            async with p.lease("batch", replace(scripted("d"), device="cpu")):
                assert set(p.memory()) == {("live", "a"), ("batch", "c"), ("batch", "d")}

    asyncio.run(main())


def test_memory_that_is_taken_by_work_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        order: list[str] = []

        async def second(p: EnginePool) -> None:
            async with p.lease("batch", scripted("b")):
                order.append("b begins")

        # A bound below any engine: one runs alone, however large, and never two.
        async with pool(tmp_path, memory=1) as p:
            async with p.lease("batch", scripted("a")) as lease:
                await loaded(lease)
                waiting = asyncio.create_task(second(p))
                async with p.lease("live", scripted("c")):  # live work never waits for room
                    pass
                order.append("a ends")
            await asyncio.wait_for(waiting, DEADLINE_S)
            assert order == ["a ends", "b begins"]

    asyncio.run(main())


def test_engines_that_grew_over_the_bound_are_thinned_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(module, "UNMEASURED_BYTES", 0)  # as if they were expected to be small

    async def main() -> None:
        async with pool(tmp_path, memory=60 << 20, unload="never") as p:
            for model in ("a", "b"):
                async with p.lease("batch", scripted(model)):
                    pass
            await until(lambda: set(p.memory()) == {("batch", "b")})

    asyncio.run(main())


def test_an_engine_that_could_not_load_is_tried_anew(tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(tmp_path, unload="never") as p:
            async with p.lease("batch", scripted("missing")) as lease:
                with pytest.raises(ModelMissing):
                    await loaded(lease)
                async with p.lease("batch", scripted("missing")) as other:
                    assert other.path == lease.path
                    other.broken = True
                async with p.lease("batch", scripted("missing")) as fresh:  # though the first still has the broken one
                    assert fresh.path != lease.path and lease.path.exists()
                    fresh.broken = True
            assert not p.memory() and not names(tmp_path)
            async with p.lease("batch", scripted("missing")) as again:
                assert again.path != lease.path

    asyncio.run(main())


def test_stopping_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    async def main() -> None:
        async with pool(tmp_path, unload="never") as p:
            for model in ("a", "b"):
                async with p.lease("batch", scripted(model)):
                    pass
            assert len(names(tmp_path)) == 2
        assert not engines(psutil.Process()) and not names(tmp_path)

    asyncio.run(main())
