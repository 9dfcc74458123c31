from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from callreel.engines import hub as hubs
from callreel.engines import shelf
from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.catalogue import load
from callreel.engines.download import pull, pull_async
from callreel.engines.fetch import COMMIT, Order, Progress
from callreel.errors import EngineUnavailable, InvalidInput, ModelMissing
from tests.engines.children import DEADLINE_S, ROOT, environment, wait_until
from tests.engines.fake_hub import Hub

GIVEN_UP_S = 10.0  # 1.5 where nothing else runs; the hub's client would wait for minutes
PART = 2_000_000  # of the weights' 7 MB


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("HF_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    hubs.forget()  # another test's hub may have had the same port


@pytest.fixture
def hub(toy_model: Path) -> Iterator[Hub]:
    with Hub(toy_model) as hub:
        yield hub


def assert_same_model(folder: Path, original: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json", "callreel.json"):
        assert (folder / name).read_bytes() == (original / name).read_bytes()


def drafts(models: Path) -> list[str]:
    return sorted(p.name for p in (models / shelf.INCOMING).iterdir() if p.is_dir())


def started(hub: Hub, models: Path) -> subprocess.Popen[bytes]:
    """The child by itself, to be killed."""
    order = Order("Systran/faster-whisper-base", str(models / "base"), hub.url)
    return subprocess.Popen(
        [sys.executable, "-m", "callreel.engines.fetch", msgspec.json.encode(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
    )


def partial_bytes(models: Path) -> int:
    path = models / shelf.INCOMING / "base" / "model.bin.incomplete"
    return path.stat().st_size if path.exists() else 0


def test_a_model_arrives_whole_and_is_used_by_its_name(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    said: list[Progress] = []
    folder = pull("base", tmp_path, hub=hub.url, on_progress=said.append)
    assert folder == tmp_path / "base"
    assert_same_model(folder, toy_model)
    assert drafts(tmp_path) == []
    assert [p.done_bytes for p in said] == sorted(p.done_bytes for p in said)
    assert said[-1].done_bytes == said[-1].total_bytes > 9_000_000
    assert said[-1].percent == 100.0
    engine = load(EngineSpec("whisper", "base", str(tmp_path)))
    assert engine.decode([Window(np.zeros(16_000, np.int16))], DecodeOptions("en"))[0].words == ()
    n_asked = len(hub.asked)
    assert pull("BASE", tmp_path, hub=hub.url) == folder  # it is here: nothing is fetched
    assert len(hub.asked) == n_asked


def test_killed_in_the_middle_it_goes_on_where_it_was(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    hub.stop_after = PART
    with started(hub, tmp_path) as child:
        wait_until(lambda: partial_bytes(tmp_path) == PART, "a part of the weights")
        child.kill()
    assert shelf.find("base", tmp_path) is None  # what is not whole is no model
    hub.stop_after = None
    hub.asked.clear()
    said: list[Progress] = []
    assert_same_model(pull("base", tmp_path, hub=hub.url, on_progress=said.append), toy_model)
    assert hub.asked == [("model.bin", f"bytes={PART}-")]  # the other files were whole
    assert said[0].done_bytes > PART


def test_it_ends_with_its_parent(hub: Hub, tmp_path: Path) -> None:
    hub.stop_after = PART
    with started(hub, tmp_path) as child:
        wait_until(lambda: partial_bytes(tmp_path) == PART, "a part of the weights")
        assert child.stdin is not None
        child.stdin.close()
        child.wait(DEADLINE_S)


def test_a_connection_that_breaks_is_taken_up_by_itself(
    hub: Hub, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stop_after, hub.how = 4_000_000, "cut"
    assert_same_model(pull("base", tmp_path, hub=hub.url), toy_model)
    assert [r for name, r in hub.asked if name == "model.bin"] == [None, "bytes=4000000-"]


def test_a_hub_without_ranges_sends_all_of_it_again(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    draft = tmp_path / shelf.INCOMING / "base"
    draft.mkdir(parents=True)
    (draft / COMMIT).write_text(hub.commit)
    (draft / "model.bin.incomplete").write_bytes(b"x" * 1000)
    hub.ranges = False
    assert_same_model(pull("base", tmp_path, hub=hub.url), toy_model)


def test_what_was_begun_of_another_version_is_thrown_away(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    draft = tmp_path / shelf.INCOMING / "base"
    draft.mkdir(parents=True)
    (draft / COMMIT).write_text("f" * 40)
    (draft / "model.bin.incomplete").write_bytes(b"x" * 1000)
    assert_same_model(pull("base", tmp_path, hub=hub.url), toy_model)
    assert ("model.bin", None) in hub.asked


def test_weights_that_arrive_wrong_are_not_kept(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    draft = tmp_path / shelf.INCOMING / "base"
    draft.mkdir(parents=True)
    (draft / COMMIT).write_text(hub.commit)
    (draft / "model.bin.incomplete").write_bytes(b"x" * 1000)  # not what the weights begin with
    with pytest.raises(EngineUnavailable, match="did not arrive"):
        pull("base", tmp_path, hub=hub.url)
    assert shelf.find("base", tmp_path) is None
    assert_same_model(pull("base", tmp_path, hub=hub.url), toy_model)


def test_two_at_once_fetch_it_once(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    async def both() -> list[Path]:
        return list(await asyncio.gather(*(pull_async("base", tmp_path, hub=hub.url) for _ in range(2))))

    for folder in asyncio.run(both()):
        assert_same_model(folder, toy_model)
    assert [name for name, _ in hub.asked].count("model.bin") == 1


def test_a_cancelled_download_ends_its_process_and_can_go_on(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    hub.stop_after = PART
    before = set(psutil.Process().children(recursive=True))

    async def cancel() -> None:
        task = asyncio.create_task(pull_async("base", tmp_path, hub=hub.url))
        await asyncio.to_thread(wait_until, lambda: partial_bytes(tmp_path) == PART, "a part of the weights")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert set(psutil.Process().children(recursive=True)) == before
    hub.stop_after = None
    assert_same_model(asyncio.run(pull_async("base", tmp_path, hub=hub.url)), toy_model)
    assert ("model.bin", f"bytes={PART}-") in hub.asked


def test_any_repository_can_be_asked_for(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    hub.repositories = ("somebody/swahili-ct2",)
    folder = pull("somebody/swahili-ct2", tmp_path, hub=hub.url)
    assert_same_model(folder, toy_model)
    found = shelf.find("somebody/swahili-ct2", tmp_path)
    assert found is not None
    assert found.folder == folder
    assert [m.name for m in shelf.present(tmp_path)] == ["somebody/swahili-ct2"]


def test_the_users_token_goes_along(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    pull("base", tmp_path, hub=hub.url)
    assert hub.authorizations == {"Bearer hf_ours"}


def test_a_load_fetches_what_it_may_fetch(hub: Hub, tmp_path: Path) -> None:
    engine = load(EngineSpec("whisper", "base", str(tmp_path), download=True, hub_url=hub.url))
    assert engine.model == "base"


def test_what_the_hub_has_not(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="nobody/nothing"):
        pull("nobody/nothing", tmp_path, hub=hub.url)
    with pytest.raises(InvalidInput, match="nearest"):
        pull("bass", tmp_path, hub=hub.url)
    hub.status = 404  # of a mirror that does not say in the hub's own header what is not there
    with pytest.raises(ModelMissing, match=r"has no model 'Systran/faster-whisper-base' that we may have$"):
        pull("base", tmp_path, hub=hub.url)
    with pytest.raises(ModelMissing, match="no folder"):
        pull("/no/such/folder", tmp_path, hub=hub.url)


def test_a_repository_of_another_kind(hub: Hub, tmp_path: Path) -> None:
    hub.folder = tmp_path / "other"
    hub.folder.mkdir()
    (hub.folder / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(InvalidInput, match=r"no model\.bin"):
        pull("base", tmp_path, hub=hub.url)


def test_a_hub_that_is_down_or_not_there(hub: Hub, tmp_path: Path) -> None:
    hub.status = 500
    with pytest.raises(EngineUnavailable, match=r"refuses .* with HTTP 500$"):
        pull("base", tmp_path, hub=hub.url)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(EngineUnavailable, match="cannot be reached") as caught:
        pull("base", tmp_path, hub=url)
    assert "models.hub_url" in caught.value.hint
    assert caught.value.transient


def test_a_hub_that_takes_the_call_and_never_answers_is_given_up_in_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        spec = EngineSpec("whisper", "base", str(tmp_path), download=True, hub_url=url)
        for ask in (
            lambda: load(spec),
            lambda: pull("base", tmp_path, hub=url),
            lambda: asyncio.run(pull_async("base", tmp_path, hub=url)),
        ):
            hubs.forget()
            began = time.monotonic()
            with pytest.raises(EngineUnavailable, match="cannot be reached") as caught:
                ask()
            assert time.monotonic() - began < GIVEN_UP_S
            assert "models import" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_proxy_is_asked_instead(hub: Hub, toy_model: Path, tmp_path: Path) -> None:
    """The hub's name leads nowhere; the proxy, here the hub itself, knows it."""
    folder = pull("tiny", tmp_path, hub="http://hub.invalid", proxy=hub.url)
    assert_same_model(folder, toy_model)
