from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callreel.audio.pcm import Pcm
from callreel.clock import new_id
from callreel.errors import Conflict, InvalidInput, NotFound, StorageUnavailable
from callreel.live import tracklog
from callreel.live.tracklog import CHUNK_SAMPLES, TrackLog, logged_samples, read_log

DEADLINE_S = 20.0  # how long a test waits for what must come
CALL, STREAM = "0198d2a0-0000-7000-8000-00000000000a", "0198d2a0-0000-7000-8000-00000000000b"


def speech(start: int, n: int) -> Pcm:
    """Samples [start, start + n) of a sound in which no sample looks like its neighbours."""
    return (np.arange(start, start + n, dtype=np.int64) * 7919 % 65521 - 32760).astype(np.int16)


class Listener:
    """What a log told, kept for tests to wait on. Deliveries run in the log's own thread."""

    def __init__(self) -> None:
        self.accepted: dict[str, list[tuple[int, Pcm]]] = {}
        self.troubles: list[OSError | None] = []
        self.deliveries = 0
        self._changed = threading.Condition()

    def deliver(self, call: Callable[[], None]) -> None:
        with self._changed:
            self.deliveries += 1
            call()
            self._changed.notify_all()

    def of(self, stream_id: str) -> Callable[[int, Pcm], None]:
        return lambda offset, pcm: self.accepted.setdefault(stream_id, []).append((offset, pcm))

    def samples(self, stream_id: str = STREAM) -> int:
        return self.accepted[stream_id][-1][0] if stream_id in self.accepted else 0

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_S)

    def sound(self, stream_id: str = STREAM) -> Pcm:
        """All that was reported, after a check that each report follows the one before."""
        reports = self.accepted.get(stream_id, [])
        for (before, _), (after, pcm) in itertools.pairwise(reports):
            assert after - before == len(pcm)
        return np.concatenate([np.zeros(0, np.int16), *(pcm for _, pcm in reports)])


@pytest.fixture
def listener() -> Listener:
    return Listener()


@contextmanager
def running(root: Path, listener: Listener, **options: Any) -> Iterator[TrackLog]:
    log = TrackLog(root, deliver=listener.deliver, on_trouble=listener.troubles.append, **options)
    try:
        yield log
    finally:
        log.shutdown()


def logged(root: Path, call_id: str = CALL, stream_id: str = STREAM, *, start: int = 0, block: int = 50_000) -> Pcm:
    return np.concatenate([np.zeros(0, np.int16), *read_log(root, call_id, stream_id, start, block)])


def chunk_file(root: Path, chunk: int) -> Path:
    return root / CALL / STREAM / f"{chunk:06d}.s16"


# -- what is appended is what is read


@settings(max_examples=30, deadline=None)
@given(
    runs=st.lists(st.lists(st.integers(0, 300), max_size=12), min_size=1, max_size=3),
    block=st.integers(1, 400),
    start=st.integers(0, 500),
)
def test_any_appends_read_back_exactly(runs: list[list[int]], block: int, start: int) -> None:
    """Each run opens the log anew; chunks are short, so that most appends cross a border."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracklog, "CHUNK_SAMPLES", 100)
        root, listener, total = Path(folder), Listener(), 0
        for lengths in runs:
            with running(root, listener, flush_s=0.0) as log:
                log.open(CALL, STREAM, listener.of(STREAM))
                for n in lengths:
                    log.append(STREAM, speech(total, n))
                    total += n
                assert log.close(STREAM).result(DEADLINE_S) == total
        assert logged_samples(root, CALL, STREAM) == total
        assert np.array_equal(logged(root, start=start, block=block), speech(start, max(0, total - start)))
        assert np.array_equal(listener.sound(), speech(0, total))
        assert all(path.stat().st_size <= 200 for path in root.rglob("*.s16"))


def test_chunks_are_sixty_seconds(tmp_path: Path, listener: Listener) -> None:
    with running(tmp_path, listener) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        log.append(STREAM, speech(0, 2 * CHUNK_SAMPLES + 5))
        log.close(STREAM).result(DEADLINE_S)
    assert CHUNK_SAMPLES == 960_000
    assert [chunk_file(tmp_path, n).stat().st_size for n in range(3)] == [1_920_000, 1_920_000, 10]
    assert chunk_file(tmp_path, 0).stat().st_mode & 0o077 == 0
    border = CHUNK_SAMPLES - 3
    assert np.array_equal(logged(tmp_path, start=border)[:7], speech(border, 7))


def test_a_group_of_many_streams_is_one_delivery(tmp_path: Path, listener: Listener) -> None:
    ids = [new_id() for _ in range(50)]
    with running(tmp_path, listener, flush_s=DEADLINE_S) as log:  # `shutdown` ends the wait: one group
        for n, stream_id in enumerate(ids):
            log.open(CALL, stream_id, listener.of(stream_id))
            log.append(stream_id, speech(n, 320))
            log.append(stream_id, speech(n + 320, n))
    assert listener.deliveries == 1
    for n, stream_id in enumerate(ids):
        ((offset, pcm),) = listener.accepted[stream_id]
        assert offset == 320 + n
        assert np.array_equal(pcm, speech(n, 320 + n))
        assert np.array_equal(logged(tmp_path, CALL, stream_id), pcm)


def test_audio_is_reported_while_the_stream_goes_on(tmp_path: Path, listener: Listener) -> None:
    with running(tmp_path, listener) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        for n in range(5):
            log.append(STREAM, speech(n * 100, 100))
            listener.wait(lambda n=n: listener.samples() == (n + 1) * 100)  # type: ignore[misc]
            assert logged_samples(tmp_path, CALL, STREAM) == (n + 1) * 100


def test_closing_is_reported_after_the_last_audio(tmp_path: Path, listener: Listener) -> None:
    with running(tmp_path, listener, flush_s=0.001) as log:
        for _ in range(200):  # again and again, for the race between a group and the close that follows it
            before = listener.samples()
            log.open(CALL, STREAM, listener.of(STREAM))
            log.append(STREAM, speech(before, 10))
            future = log.close(STREAM)
            assert not future.cancel()
            assert future.result(DEADLINE_S) == listener.samples() == before + 10
    assert np.array_equal(logged(tmp_path), speech(0, 2000))


def test_closing_a_stream_leaves_no_file_open(tmp_path: Path, listener: Listener) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with running(tmp_path, listener, flush_s=0.0) as log:
        before = open_files()
        for _ in range(100):
            log.open(CALL, STREAM, listener.of(STREAM))
            log.append(STREAM, speech(0, 1))
            log.close(STREAM).result(DEADLINE_S)
        assert open_files() == before


# -- going on with a log


def test_half_a_sample_is_dropped(tmp_path: Path, listener: Listener) -> None:
    chunk_file(tmp_path, 0).parent.mkdir(parents=True)
    chunk_file(tmp_path, 0).write_bytes(speech(0, 10).tobytes() + b"\x7f")
    assert logged_samples(tmp_path, CALL, STREAM) == 10
    assert len(logged(tmp_path)) == 10
    with running(tmp_path, listener) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        log.append(STREAM, speech(10, 10))
        assert log.close(STREAM).result(DEADLINE_S) == 20
    assert chunk_file(tmp_path, 0).stat().st_size == 40
    assert np.array_equal(logged(tmp_path), speech(0, 20))


def test_a_log_may_begin_behind_what_another_machine_keeps(tmp_path: Path, listener: Listener) -> None:
    at = 3 * CHUNK_SAMPLES + 7
    with running(tmp_path, listener) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        log.append(STREAM, speech(0, 20))
        log.close(STREAM).result(DEADLINE_S)
        log.open(CALL, STREAM, listener.of(STREAM), at)
        assert log.close(STREAM).result(DEADLINE_S) == at
        log.open(CALL, STREAM, listener.of(STREAM), at - 5)
        log.append(STREAM, speech(0, 10))
        assert log.close(STREAM).result(DEADLINE_S) == at + 10
    heard = logged(tmp_path, start=at - 5)
    assert np.array_equal(heard, np.concatenate([np.zeros(5, np.int16), speech(0, 10)]))
    assert np.array_equal(logged(tmp_path)[:20], speech(0, 20))
    assert not logged(tmp_path, start=20)[: at - 20].any()


# -- what is refused


@pytest.mark.parametrize("bad", ["", "..", "../" + CALL, CALL.upper(), CALL + "\n", CALL.replace("-", ""), "/etc"])
def test_no_path_comes_from_an_id(tmp_path: Path, listener: Listener, bad: str) -> None:
    with running(tmp_path, listener) as log:
        for call_id, stream_id in [(bad, STREAM), (CALL, bad)]:
            with pytest.raises(InvalidInput):
                log.open(call_id, stream_id, listener.of(STREAM))
            with pytest.raises(InvalidInput):
                logged_samples(tmp_path, call_id, stream_id)
            with pytest.raises(InvalidInput):
                list(read_log(tmp_path, call_id, stream_id, 0, 1))


def test_a_stream_is_open_once_and_closed_once(tmp_path: Path, listener: Listener) -> None:
    with running(tmp_path, listener, flush_s=DEADLINE_S) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        with pytest.raises(Conflict):
            log.open(CALL, STREAM, listener.of(STREAM))
        future = log.close(STREAM)
        with pytest.raises(Conflict):  # not before all of it is written
            log.open(CALL, STREAM, listener.of(STREAM))
        for use in (lambda: log.append(STREAM, speech(0, 1)), lambda: log.close(STREAM)):
            with pytest.raises(NotFound):
                use()
    assert future.result(0) == 0
    with pytest.raises(StorageUnavailable):
        log.open(CALL, STREAM, listener.of(STREAM))


# -- trouble


class Disk:
    """Stands in front of os.pwrite and os.fsync: has room for `free` bytes in all, refuses the files in `broken`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.free: float = float("inf")
        self.broken: set[str] = set()
        self.fails_sync = False
        self.attempts = 0
        self._tried = threading.Condition()
        self._pwrite, self._fsync = os.pwrite, os.fsync
        patch.setattr(os, "pwrite", self.pwrite)
        patch.setattr(os, "fsync", self.fsync)

    def wait_attempts(self, more: int) -> None:
        with self._tried:
            wanted = self.attempts + more
            assert self._tried.wait_for(lambda: self.attempts >= wanted, DEADLINE_S)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        with self._tried:
            self.attempts += 1
            self._tried.notify_all()
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if self.broken & set(path.parts):
            raise OSError(errno.EIO, "the disk is broken")
        new = max(0, offset + data.nbytes - path.stat().st_size)  # writing over what is there takes no room
        n = data.nbytes - max(0, int(new - min(new, self.free)))
        if n == 0:
            raise OSError(errno.ENOSPC, "the disk is full")
        self.free -= min(new, self.free)
        return self._pwrite(fd, data.cast("B")[:n], offset)

    def fsync(self, fd: int) -> None:
        if self.fails_sync:
            raise OSError(errno.EIO, "the disk did not take it")
        self._fsync(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("free", [0, 1, 2, 101, 1000])
def test_a_full_disk_delays_audio_and_loses_none(tmp_path: Path, listener: Listener, disk: Disk, free: int) -> None:
    disk.free = free
    with running(tmp_path, listener) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        log.append(STREAM, speech(0, 1000))
        listener.wait(lambda: listener.troubles != [])
        log.append(STREAM, speech(1000, 1000))
        future = log.close(STREAM)
        listener.wait(lambda: listener.samples() == free // 2)
        disk.free = 1.0  # an odd byte comes free: not room for a sample
        disk.wait_attempts(2)
        assert not future.done()
        disk.free = float("inf")
        assert future.result(DEADLINE_S) == 2000
    assert [error and error.errno for error in listener.troubles] == [errno.ENOSPC, None]
    assert np.array_equal(listener.sound(), speech(0, 2000))
    assert np.array_equal(logged(tmp_path), speech(0, 2000))


def test_one_broken_file_holds_up_no_other(tmp_path: Path, listener: Listener, disk: Disk) -> None:
    good = new_id()
    disk.broken = {STREAM}
    with running(tmp_path, listener) as log:
        for stream_id in (STREAM, good):
            log.open(CALL, stream_id, listener.of(stream_id))
            log.append(stream_id, speech(0, 100))
        listener.wait(lambda: listener.samples(good) == 100 and len(listener.troubles) == 1)
        for n in range(1, 10):
            log.append(good, speech(100 * n, 100))
            listener.wait(lambda n=n: listener.samples(good) == 100 * n + 100)  # type: ignore[misc]
        assert listener.samples() == 0
        disk.broken = set()
        listener.wait(lambda: listener.samples() == 100 and listener.troubles[-1] is None)
        disk.broken = {good}
        log.append(good, speech(1000, 1))
        listener.wait(lambda: len(listener.troubles) == 3)  # a second outage is told again
        disk.broken = set()
    assert [error is None for error in listener.troubles] == [False, True, False, True]
    assert np.array_equal(logged(tmp_path, CALL, good), speech(0, 1001))


def test_a_folder_that_cannot_be_made_is_tried_again(tmp_path: Path, listener: Listener) -> None:
    root = tmp_path / "live"
    root.write_text("in the way")
    with running(root, listener) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        log.append(STREAM, speech(0, 100))
        listener.wait(lambda: listener.troubles != [])
        root.unlink()
        assert log.close(STREAM).result(DEADLINE_S) == 100
    assert np.array_equal(logged(root), speech(0, 100))


def test_a_shutdown_does_not_wait_for_the_disk(tmp_path: Path, listener: Listener, disk: Disk) -> None:
    disk.free = 20
    with running(tmp_path, listener) as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        log.append(STREAM, speech(0, 100))
        future = log.close(STREAM)
    with pytest.raises(StorageUnavailable) as caught:
        future.result(0)
    assert caught.value.detail["samples"] == listener.samples() == logged_samples(tmp_path, CALL, STREAM) == 10


def test_retries_wait_longer_and_longer(tmp_path: Path) -> None:
    stream = tracklog._Stream(STREAM, tmp_path, lambda offset, pcm: None, 0)
    waits = []
    for _ in range(7):
        stream.put_off(now=100.0)
        waits.append(round(stream.retry_at - 100.0, 3))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_nothing_is_accepted_before_it_is_synced(tmp_path: Path, listener: Listener, disk: Disk) -> None:
    with running(tmp_path, listener, fsync="group") as log:
        log.open(CALL, STREAM, listener.of(STREAM))
        log.append(STREAM, speech(0, 100))
        listener.wait(lambda: listener.samples() == 100)
        disk.fails_sync = True
        log.append(STREAM, speech(100, 100))
        listener.wait(lambda: listener.troubles != [])
        assert listener.samples() == 100
        written = disk.attempts
        disk.fails_sync = False
        assert log.close(STREAM).result(DEADLINE_S) == 200
    assert disk.attempts > written  # written again: after a failed fsync the page cache cannot be trusted
    assert np.array_equal(logged(tmp_path), speech(0, 200))


# -- the real thing, in a process of its own


def _write_under_a_limit(root: Path, limit: int, pipe: Connection) -> None:
    """The kernel's own short writes and errors: no file may grow beyond `limit` bytes, until the parent says so."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    log = TrackLog(
        root,
        deliver=lambda call: call(),
        on_trouble=lambda error: pipe.send(error and errno.errorcode[error.errno or 0]),
    )
    log.open(CALL, STREAM, lambda offset, pcm: pipe.send(offset))
    log.append(STREAM, speech(0, 2000))
    pipe.recv()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.close(STREAM).result(DEADLINE_S)
    log.shutdown()


def _write_until_killed(root: Path, streams: list[str], pipe: Connection) -> None:
    log = TrackLog(root, deliver=lambda call: call(), on_trouble=lambda error: None, flush_s=0.001)
    reported = threading.Semaphore(100)  # what may wait for the disk
    for stream_id in streams:

        def accepted(offset: int, pcm: Pcm, stream_id: str = stream_id) -> None:
            pipe.send((stream_id, offset))
            for _ in range(len(pcm) // 997):
                reported.release()

        log.open(CALL, stream_id, accepted)
    for n in itertools.count():
        for stream_id in streams:
            reported.acquire()
            log.append(stream_id, speech(n * 997, 997))


@contextmanager
def child(target: Callable[..., None], *args: object) -> Iterator[tuple[Connection, Callable[[], None]]]:
    """Run `target(*args, pipe)`; gives the parent's end of the pipe, and what kills the child as kill -9 does."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*args, theirs))
    process.start()
    theirs.close()
    try:
        yield ours, process.kill
        process.join(DEADLINE_S)
        assert process.exitcode is not None
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


@pytest.mark.parametrize(("limit", "error"), [(1000, "EFBIG"), (1001, "ENOSPC")])  # room for half a sample is none
def test_a_file_that_may_not_grow(tmp_path: Path, limit: int, error: str) -> None:
    with child(_write_under_a_limit, tmp_path, limit) as (pipe, _):
        assert {pipe.recv(), pipe.recv()} == {500, error}
        pipe.send("go on")
        assert {pipe.recv(), pipe.recv()} == {2000, None}
    assert np.array_equal(logged(tmp_path), speech(0, 2000))


def test_what_was_accepted_survives_kill_9(tmp_path: Path, listener: Listener) -> None:
    streams = [new_id() for _ in range(5)]
    accepted = dict.fromkeys(streams, 0)
    with child(_write_until_killed, tmp_path, streams) as (pipe, kill), suppress(EOFError):
        while True:
            stream_id, accepted[stream_id] = pipe.recv()
            if min(accepted.values()) > CHUNK_SAMPLES:
                kill()
    for stream_id in streams:
        n = logged_samples(tmp_path, CALL, stream_id)
        assert n >= accepted[stream_id] > CHUNK_SAMPLES
        assert np.array_equal(logged(tmp_path, CALL, stream_id), speech(0, n))
    with running(tmp_path, listener) as log:  # and the next server goes on behind it
        log.open(CALL, streams[0], listener.of(streams[0]))
        n = logged_samples(tmp_path, CALL, streams[0])
        log.append(streams[0], speech(n, 10))
        assert log.close(streams[0]).result(DEADLINE_S) == n + 10
    assert np.array_equal(logged(tmp_path, CALL, streams[0]), speech(0, n + 10))
