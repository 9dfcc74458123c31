from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from callreel.audio.decode import decode
from callreel.audio.pcm import samples
from callreel.engines import frames
from callreel.engines.base import DecodeOptions, EngineSpec, Window
from callreel.engines.calls import LOOK_EVERY_S, PATIENCE_S
from callreel.engines.process import ABANDONED
from callreel.engines.remote import MAX_CRASHES, AsyncRemoteEngine, RemoteEngine
from callreel.engines.whisper import WhisperEngine
from callreel.errors import EngineCrashed, EngineUnavailable, InvalidInput, ModelMissing
from tests.engines.children import DEADLINE_S, ROOT, SCRIPTED, EngineChildren, environment, has_ended, wait_until
from tests.engines.fake_engines import CAPABILITIES, HEAVY_BYTES, ScriptedEngine

ENDED_WITH_PARENT = (0, -signal.SIGIO)  # whichever of the two ways is quicker
ENGLISH = DecodeOptions(language="en", temperature=0.5)


def window(prompt: str = "", n_samples: int = 16_000) -> Window:
    return Window(np.arange(n_samples, dtype=np.int32).astype(np.int16), prompt)


def in_process(*windows: Window) -> object:
    return ScriptedEngine("any").decode(windows, ENGLISH)


@contextmanager
def started(listener: socket.socket, spec: EngineSpec, *, nice: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """A child that nobody starts again."""
    fd = listener.fileno()
    command = [sys.executable, "-m", "callreel.engines.process", str(fd), msgspec.json.encode(spec), str(nice)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[fd], cwd=ROOT, env=environment()) as child:
        yield child


class Waiting:
    """A window whose decode lasts until it is let go, so that something can happen meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "go"
        self.window = window(f"wait {self._path}", 1234)

    def begun(self) -> None:
        wait_until(self._path.with_name("go.begun").exists, "the decode has begun")

    def again(self) -> None:
        self._path.with_name("go.begun").unlink()

    def go(self) -> None:
        self._path.touch()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineChildren]:
    """For tests that leave the child alive."""
    with EngineChildren(tmp_path_factory.mktemp("engine")) as children:
        yield children


@pytest.fixture
def children(tmp_path: Path) -> Iterator[EngineChildren]:
    """For tests that kill."""
    with EngineChildren(tmp_path) as children:
        yield children


@pytest.fixture
def engine(shared: EngineChildren) -> Iterator[RemoteEngine]:
    engine = RemoteEngine(shared.path, timeout_s=DEADLINE_S)
    yield engine
    engine.close()


# -- the same as in process


def test_it_is_what_it_says(engine: RemoteEngine) -> None:
    assert (engine.name, engine.model, engine.capabilities) == ("scripted", "any", CAPABILITIES)


def test_an_answer_is_what_the_engine_says(engine: RemoteEngine) -> None:
    windows = [window(n_samples=n) for n in (0, 1, 30_000)]
    assert engine.decode(windows, ENGLISH) == in_process(*windows)
    assert engine.decode([], ENGLISH) == []


def test_whisper_says_the_same_from_another_process(
    toy_model: Path, toy_audio: Path, toy_engine: WhisperEngine, tmp_path: Path
) -> None:
    english, swahili = (
        np.concatenate(list(decode(toy_audio / name)))[: samples(4.0)] for name in ("en_short.wav", "sw_short.flac")
    )
    windows = [Window(english), Window(swahili)]
    expected = toy_engine.decode(windows, DecodeOptions())
    assert [d.language for d in expected] == ["en", "sw"]

    async def from_asyncio(path: Path) -> object:
        engine = AsyncRemoteEngine(path, timeout_s=DEADLINE_S)
        hello = await engine.hello()
        assert (hello.name, hello.model, hello.capabilities) == ("whisper", "whisper-toy", toy_engine.capabilities)
        try:
            return await engine.decode(windows, DecodeOptions())
        finally:
            engine.close()

    with EngineChildren(tmp_path, EngineSpec("whisper", str(toy_model), "/nowhere", threads=2)) as children:
        engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
        assert engine.capabilities == toy_engine.capabilities
        assert engine.decode(windows, DecodeOptions()) == expected
        assert asyncio.run(from_asyncio(children.path)) == expected
        engine.close()


def test_threads_do_not_get_each_others_answers(engine: RemoteEngine) -> None:
    windows = [window(n_samples=n) for n in range(100, 140)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda w: engine.decode([w], ENGLISH), windows))
    assert answers == [in_process(w) for w in windows]


def test_tasks_do_not_get_each_others_answers(shared: EngineChildren) -> None:
    windows = [window(n_samples=n) for n in range(100, 140)]

    async def all_at_once() -> list[object]:
        engine = AsyncRemoteEngine(shared.path, timeout_s=DEADLINE_S)
        try:
            return list(await asyncio.gather(*(engine.decode([w], ENGLISH) for w in windows)))
        finally:
            engine.close()

    assert asyncio.run(all_at_once()) == [in_process(w) for w in windows]


# -- errors


def test_errors_keep_their_class_and_the_child_lives_on(engine: RemoteEngine, shared: EngineChildren) -> None:
    pid = shared.process.pid
    with pytest.raises(InvalidInput, match="This is no speech") as refused:
        engine.decode([window("refuse")], ENGLISH)
    assert (refused.value.hint, refused.value.detail) == ("Sing less", {"field": "windows"})
    with pytest.raises(EngineUnavailable, match="Come again later") as busy:
        engine.decode([window("busy")], ENGLISH)
    assert busy.value.transient
    with pytest.raises(EngineUnavailable, match="RuntimeError: the pen is empty") as raised:
        engine.decode([window("raise")], ENGLISH)
    assert (raised.value.code, raised.value.transient) == ("internal", False)
    assert engine.decode([window()], ENGLISH) == in_process(window())
    assert shared.process.pid == pid


@pytest.mark.parametrize(("model", "code"), [("missing", "model_missing"), ("broken", "internal")])
def test_a_model_that_does_not_load_is_heard_of(model: str, code: str, tmp_path: Path) -> None:
    spec = EngineSpec(SCRIPTED.engine, model, "/nowhere")

    async def from_asyncio(path: Path) -> None:
        await AsyncRemoteEngine(path, timeout_s=DEADLINE_S).hello()

    with EngineChildren(tmp_path, spec) as children:
        with pytest.raises(EngineUnavailable) as blocking:
            RemoteEngine(children.path, timeout_s=DEADLINE_S)
        with pytest.raises(EngineUnavailable) as asynchronous:
            asyncio.run(from_asyncio(children.path))
        assert children.deaths == 0  # or it would be started again and again
    assert blocking.value.code == asynchronous.value.code == code
    if model == "missing":
        assert isinstance(blocking.value, ModelMissing)
        assert (blocking.value.hint, blocking.value.detail) == ("Whistle", {"folder": "/nowhere"})
    else:
        assert "the weights are upside down" in str(blocking.value)


@pytest.mark.parametrize("said", [frames.LENGTH.pack(2**31), frames.LENGTH.pack(5) + b"hello"])
def test_a_stranger_is_cut_off_and_nobody_else(said: bytes, engine: RemoteEngine, shared: EngineChildren) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(DEADLINE_S)
        stranger.connect(str(shared.path))
        frames.receive(stranger)  # the hello
        stranger.sendall(said)
        assert stranger.recv(1) == b""
    assert engine.decode([window()], ENGLISH) == in_process(window())


def test_a_child_that_does_not_speak_our_protocol(tmp_path: Path) -> None:
    path = tmp_path / "strange.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def shout() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(frames.LENGTH.pack(2**32 - 1))

        shouting = threading.Thread(target=shout)
        shouting.start()
        with pytest.raises(EngineUnavailable, match="not our protocol"):
            RemoteEngine(path, timeout_s=DEADLINE_S)
        with pytest.raises(EngineUnavailable, match="not our protocol"):
            asyncio.run(AsyncRemoteEngine(path, timeout_s=DEADLINE_S).hello())
        shouting.join()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="No answer"):
        RemoteEngine(tmp_path / "none.sock", timeout_s=0.3)
    with pytest.raises(EngineUnavailable, match="No answer"):
        asyncio.run(AsyncRemoteEngine(tmp_path / "none.sock", timeout_s=0.3).hello())


def test_a_child_that_never_says_hello(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "mute.sock"))
        listener.listen()
        with pytest.raises(EngineUnavailable, match="No answer"):
            RemoteEngine(tmp_path / "mute.sock", timeout_s=0.3)
        with pytest.raises(EngineUnavailable, match="No answer"):
            asyncio.run(AsyncRemoteEngine(tmp_path / "mute.sock", timeout_s=0.3).hello())


# -- a call given up half way: the next one must not get its answer


class Interrupted(BaseException):
    """What the test's signal raises."""


def test_after_an_interrupted_call_the_next_gets_its_own_answer(engine: RemoteEngine, tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)

    def interrupt(*_: object) -> None:
        raise Interrupted

    def signal_when_begun() -> None:
        waiting.begun()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    other = threading.Thread(target=signal_when_begun)
    try:
        other.start()
        with pytest.raises(Interrupted):
            engine.decode([waiting.window], ENGLISH)
    finally:
        signal.signal(signal.SIGUSR1, before)
        waiting.go()
        other.join()
    assert engine.decode([window(n_samples=77)], ENGLISH) == in_process(window(n_samples=77))


def test_after_a_cancelled_call_the_next_gets_its_own_answer(shared: EngineChildren, tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)

    async def cancel_half_way() -> object:
        engine = AsyncRemoteEngine(shared.path, timeout_s=DEADLINE_S)
        await engine.hello()
        call = asyncio.create_task(engine.decode([waiting.window], ENGLISH))
        await asyncio.to_thread(waiting.begun)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        waiting.go()
        try:
            return await engine.decode([window(n_samples=77)], ENGLISH)
        finally:
            engine.close()

    assert asyncio.run(cancel_half_way()) == in_process(window(n_samples=77))


# -- children that die


def test_killed_between_calls_and_during_one(children: EngineChildren, tmp_path: Path) -> None:
    engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
    assert engine.decode([window()], ENGLISH) == in_process(window())
    children.kill_and_wait()
    assert engine.decode([window()], ENGLISH) == in_process(window())

    waiting = Waiting(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(engine.decode, [waiting.window], ENGLISH)
        waiting.begun()
        waiting.again()
        children.kill_and_wait()
        waiting.begun()  # by the next child
        waiting.go()
        (answer,) = call.result(DEADLINE_S)
    assert answer.words[1].word == " 1234"
    assert children.deaths == 2
    engine.close()


def test_killed_between_calls_and_during_them_with_asyncio(children: EngineChildren, tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)

    async def calls() -> None:
        engine = AsyncRemoteEngine(children.path, timeout_s=DEADLINE_S)
        several = [window(n_samples=n) for n in (5, 6, 7, 8, 9)]
        expected = [in_process(w) for w in several]
        assert await asyncio.gather(*(engine.decode([w], ENGLISH) for w in several)) == expected
        await asyncio.to_thread(children.kill_and_wait)
        assert await asyncio.gather(*(engine.decode([w], ENGLISH) for w in several)) == expected

        call = asyncio.create_task(engine.decode([waiting.window], ENGLISH))
        await asyncio.to_thread(waiting.begun)
        waiting.again()
        await asyncio.to_thread(children.kill_and_wait)
        await asyncio.to_thread(waiting.begun)
        waiting.go()
        (answer,) = await call
        assert answer.words[1].word == " 1234"
        engine.close()

    asyncio.run(calls())
    assert children.deaths == 2


def test_one_death_is_forgiven(children: EngineChildren, tmp_path: Path) -> None:
    engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
    fatal = window(f"die_once {tmp_path / 'died'}", 321)
    assert engine.decode([fatal], ENGLISH)[0].words[1].word == " 321"
    assert children.deaths == 1
    engine.close()


def test_a_window_that_always_kills_is_given_up(children: EngineChildren) -> None:
    engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
    with pytest.raises(EngineCrashed):
        engine.decode([window("die")], ENGLISH)
    assert engine.decode([window()], ENGLISH) == in_process(window())  # all others are served
    assert children.deaths == MAX_CRASHES == 3
    engine.close()


def test_a_window_that_always_kills_is_given_up_by_asyncio(children: EngineChildren) -> None:
    async def calls() -> None:
        engine = AsyncRemoteEngine(children.path, timeout_s=DEADLINE_S)
        await engine.hello()
        with pytest.raises(EngineCrashed):
            await engine.decode([window("die")], ENGLISH)
        assert await engine.decode([window()], ENGLISH) == in_process(window())
        engine.close()

    asyncio.run(calls())
    assert children.deaths == MAX_CRASHES


def test_it_ends_when_its_standard_input_closes_even_in_a_call(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path)
    with ThreadPoolExecutor(1) as pool, EngineChildren(tmp_path) as children:
        engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
        call = pool.submit(engine.decode, [waiting.window], ENGLISH)
        waiting.begun()
        waiting.again()
        assert children.process.stdin is not None
        first = children.process
        first.stdin.close()
        waiting.begun()  # by the next child
        waiting.go()
        call.result(DEADLINE_S)
        engine.close()
    assert first.returncode in ENDED_WITH_PARENT


def test_it_ends_when_its_standard_input_closes_even_if_a_library_holds_the_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "hold"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller, EngineChildren(tmp_path) as children:
        caller.settimeout(DEADLINE_S)
        caller.connect(str(children.path))
        frames.receive(caller)
        caller.sendall(frames.pack(frames.Request.of([window(f"hold {path}")], ENGLISH)))
        wait_until(path.with_name("hold.begun").exists, "the decode has begun")
        assert children.process.stdin is not None
        children.process.stdin.close()
        wait_until(lambda: children.deaths > 0, "the end of the child")


@pytest.mark.parametrize("how", ["terminate", "close"])
def test_it_ends_at_once_while_a_model_loads(how: str, tmp_path: Path) -> None:
    spec = EngineSpec(SCRIPTED.engine, f"slow {tmp_path / 'loading'}", "/nowhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "engine.sock"))
        listener.listen()
        with started(listener, spec) as child:
            wait_until((tmp_path / "loading").exists, "it loads")
            if how == "terminate":
                child.terminate()
            else:
                assert child.stdin is not None
                child.stdin.close()
            child.wait(DEADLINE_S)
    assert child.returncode in (-signal.SIGTERM, *ENDED_WITH_PARENT)


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys; from tests.engines.children import EngineChildren; "
        "children = EngineChildren(pathlib.Path(sys.argv[1])); print(children.process.pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, env=environment()
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = int(parent.stdout.readline())
        RemoteEngine(tmp_path / "engine.sock", timeout_s=DEADLINE_S).close()
        assert not has_ended(child)
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: has_ended(child), "the end of a child whose parent was killed")


def test_niceness_is_what_was_asked_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "engine.sock"))
        listener.listen()
        with started(listener, SCRIPTED, nice=5) as child:
            RemoteEngine(tmp_path / "engine.sock", timeout_s=DEADLINE_S).close()
            assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert child.returncode in ENDED_WITH_PARENT


# -- what it costs


def test_the_sum_over_all_calls_is_what_the_child_used(shared: EngineChildren) -> None:
    child = psutil.Process(shared.process.pid)
    engine = RemoteEngine(shared.path, timeout_s=DEADLINE_S)
    engine.decode([window()], ENGLISH)  # pays for what nobody paid before
    before, billed = child.cpu_times(), engine.cpu_s
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda s: engine.decode([window(f"burn {s}")], ENGLISH), (0.1, 0.2, 0.3)))
    engine.decode([window()], ENGLISH)
    after = child.cpu_times()
    used = after.user + after.system - before.user - before.system
    assert engine.cpu_s - billed == pytest.approx(used, abs=0.05)  # psutil counts in hundredths
    assert used > 0.55
    engine.close()


def test_the_child_says_how_much_memory_it_had(engine: RemoteEngine, shared: EngineChildren) -> None:
    assert engine.peak_rss_bytes == 0
    engine.decode([window()], ENGLISH)
    now = psutil.Process(shared.process.pid).memory_info().rss
    assert 0.8 * now <= engine.peak_rss_bytes <= 3 * now


def test_an_ended_child_gives_its_memory_back(tmp_path: Path) -> None:
    """Models are unloaded by ending the child: what the family has in RAM is then what it was before."""

    def family_bytes() -> int:
        me = psutil.Process()
        return sum(p.memory_info().rss for p in (me, *me.children(recursive=True)))

    spec = EngineSpec(SCRIPTED.engine, "heavy", "/nowhere")
    before = family_bytes()
    with EngineChildren(tmp_path, spec) as children:
        RemoteEngine(children.path, timeout_s=DEADLINE_S).close()
        assert family_bytes() - before > HEAVY_BYTES
    assert family_bytes() - before < HEAVY_BYTES / 10


# -- callers who hang up


def hang_up_in(what: Waiting, children: EngineChildren) -> None:
    """Ask for a decode and be gone as soon as it has begun."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(DEADLINE_S)
        caller.connect(str(children.path))
        frames.receive(caller)
        caller.sendall(frames.pack(frames.Request.of([what.window], ENGLISH)))
        what.begun()


def test_work_that_nobody_waits_for_stops(children: EngineChildren, tmp_path: Path) -> None:
    abandoned = children.process
    began = time.monotonic()
    hang_up_in(Waiting(tmp_path), children)
    wait_until(lambda: children.deaths == 1, "the end of the abandoned work")
    assert abandoned.returncode == ABANDONED
    assert time.monotonic() - began >= PATIENCE_S  # it had its chance to end by itself
    engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
    assert engine.decode([window()], ENGLISH) == in_process(window())
    engine.close()


def test_work_of_others_is_not_stopped_with_it(children: EngineChildren, tmp_path: Path) -> None:
    engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
    (tmp_path / "other").mkdir()
    mine = Waiting(tmp_path / "other")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(engine.decode, [mine.window], ENGLISH)
        mine.begun()
        left_at = time.monotonic()
        hang_up_in(Waiting(tmp_path), children)
        wait_until(lambda: time.monotonic() - left_at > PATIENCE_S + 5 * LOOK_EVERY_S, "time to give up")
        assert children.deaths == 0
        mine.go()
        assert call.result(DEADLINE_S)[0].words[1].word == " 1234"
    wait_until(lambda: children.deaths == 1, "the end, now that nobody else is there")
    engine.close()


def test_who_hangs_up_while_he_waits_for_his_turn_is_not_served(tmp_path: Path) -> None:
    """Two run, two wait: of those who wait one has gone, and what he asked for is never begun."""
    running = [Waiting(tmp_path / name) for name in ("a", "b")]
    for name in ("a", "b", "gone"):
        (tmp_path / name).mkdir()
    with EngineChildren(tmp_path) as children, ThreadPoolExecutor(3) as pool:
        engine = RemoteEngine(children.path, timeout_s=DEADLINE_S)
        calls = [pool.submit(engine.decode, [one.window], ENGLISH) for one in running]
        for one in running:
            one.begun()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(children.path))
            frames.receive(caller)
            caller.sendall(frames.pack(frames.Request.of([window(f"wait {tmp_path / 'gone' / 'go'}")], ENGLISH)))
        for one in running:
            one.go()
        for call in calls:
            call.result(DEADLINE_S)
        for _ in range(4):
            engine.decode([window()], ENGLISH)  # the slots have been free
        assert not (tmp_path / "gone" / "go.begun").exists()
        engine.close()
