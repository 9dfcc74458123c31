"""What was accepted of a live track, on disk: raw chunk files of 60 s, written for all streams by one thread.

`<root>/<call_id>/<stream_id>/000000.s16`, `000001.s16`, ...: int16 little-endian, mono, 16 kHz. Sample n of a stream
lies in chunk n // CHUNK_SAMPLES; what a chunk lacks before the newest sample is silence.
"""

from __future__ import annotations

import errno
import os
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from callreel.audio.pcm import BYTES_PER_SAMPLE, EMPTY, SAMPLE_RATE, Pcm
from callreel.clock import monotonic
from callreel.errors import Conflict, InvalidInput, NotFound, StorageUnavailable

CHUNK_SAMPLES = 60 * SAMPLE_RATE
FIRST_RETRY_S, LAST_RETRY_S = 0.1, 2.0  # each retry waits twice as long as the one before
ON_DISK = np.dtype("<i2")
NO_FILE = -1
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Accepted: TypeAlias = Callable[[int, Pcm], None]  # (offset after, what was written)


class TrackLog:
    """Writes all streams in groups, every `flush_s` seconds; call its methods from one thread, none of them blocks.

    `deliver` brings a call into that thread (`loop.call_soon_threadsafe`): one for each group, in which every stream
    that advanced gets its `on_accepted(offset_after, pcm_written)`. `on_trouble(error)` is called the same way when
    writing begins to fail, and `on_trouble(None)` when all that waits is written; in between the audio stays in
    memory, which the caller bounds, and writing is tried again. `deliver` must not raise.

    What `on_accepted` was told survives the death of this process with `fsync` "never", and a loss of power as well
    with "group".
    """

    def __init__(
        self,
        root: Path,
        *,
        deliver: Callable[[Callable[[], None]], object],
        on_trouble: Callable[[OSError | None], None],
        flush_s: float = 0.020,
        fsync: Literal["never", "group"] = "never",
    ) -> None:
        self._root, self._deliver, self._on_trouble = root, deliver, on_trouble
        self._flush_s, self._sync = flush_s, fsync == "group"
        self._streams: dict[str, _Stream] = {}  # open, or closed with something left to write
        self._arrivals: queue.SimpleQueue[_Stream | None] = queue.SimpleQueue()  # None: stop
        self._stopping = threading.Event()
        self._waiting: set[_Stream] = set()  # the thread's: between two groups, exactly those that failed
        self._troubled = False
        self._thread = threading.Thread(target=self._run, name="callreel-tracklog", daemon=True)
        self._thread.start()

    def open(self, call_id: str, stream_id: str, on_accepted: Accepted, at: int | None = None) -> None:
        """Begin a stream's log, or go on behind what is there, though not before sample `at`.

        Raises InvalidInput (an id is no UUID), Conflict (open already, or `close` unfinished), StorageUnavailable.
        """
        folder = _folder(self._root, call_id, stream_id)
        if not self._thread.is_alive():
            raise StorageUnavailable("The track log is closed: the server is shutting down.")
        if stream_id in self._streams:
            raise Conflict("This stream is open already; close it first.", stream_id=stream_id)
        stream = self._streams[stream_id] = _Stream(stream_id, folder, on_accepted, at or 0)
        self._arrivals.put(stream)

    def append(self, stream_id: str, pcm: Pcm) -> None:
        """Queue audio, which must not be changed afterwards. Raises NotFound for a stream that is not open."""
        stream = self._opened(stream_id)
        stream.incoming.append(pcm)
        self._arrivals.put(stream)

    def close(self, stream_id: str) -> Future[int]:
        """No more audio comes. The future gives the stream's samples once all are written and told to `on_accepted`.

        It cannot be cancelled; it raises StorageUnavailable if the log is shut down while the disk refuses the rest.
        Raises NotFound for a stream that is not open.
        """
        stream = self._opened(stream_id)
        closing: Future[int] = Future()
        closing.set_running_or_notify_cancel()
        stream.closing = closing
        self._arrivals.put(stream)
        return closing

    def shutdown(self) -> None:
        """Write what waits, once more and without retries, and end the thread; blocks until then."""
        self._stopping.set()
        self._arrivals.put(None)
        self._thread.join()
        for stream in self._streams.values():
            stream.release()
            if stream.closing is not None:
                stream.closing.set_exception(StorageUnavailable(stream_id=stream.id, samples=stream.offset))
        self._streams.clear()

    def _opened(self, stream_id: str) -> _Stream:
        stream = self._streams.get(stream_id)
        if stream is None or stream.closing is not None:
            raise NotFound("No stream is open under this id.", stream_id=stream_id)
        return stream

    # -- in the thread

    def _run(self) -> None:
        stop = False
        while not stop:
            stop = self._gather()
            self._write_group(stop)

    def _gather(self) -> bool:
        """Wait until something comes or a retry is due, then for the rest of the group. True: stop after it."""
        wait_s = min((max(0.0, stream.retry_at - monotonic()) for stream in self._waiting), default=None)
        try:
            first = self._arrivals.get(timeout=wait_s)
        except queue.Empty:
            return False
        self._stopping.wait(self._flush_s)
        arrived = {first, *(self._arrivals.get_nowait() for _ in range(self._arrivals.qsize()))}
        # A stream may be finished by the group before the one that its last arrival belongs to.
        self._waiting.update(s for s in arrived if s is not None and self._streams.get(s.id) is s)
        return None in arrived

    def _write_group(self, stop: bool) -> None:
        now = monotonic()
        calls: list[Callable[[], None]] = []
        closed: list[tuple[Future[int], int]] = []
        error: OSError | None = None
        for stream in [stream for stream in self._waiting if stop or stream.retry_at <= now]:
            closing = stream.closing  # read before `incoming` is taken, which then holds all that came before it
            try:
                stream.write(self._sync)
            except OSError as failure:
                error = failure
                stream.put_off(now)
            else:
                self._waiting.remove(stream)
                if closing is not None:
                    stream.release()
                    del self._streams[stream.id]
                    closed.append((closing, stream.offset))
            if stream.written:
                calls.append(stream.report())
        if self._troubled != bool(self._waiting):
            self._troubled = not self._troubled
            calls.append(partial(self._on_trouble, error))
        if calls:
            self._deliver(partial(_call_each, calls))
        for closing, samples in closed:
            closing.set_result(samples)


class _Stream:
    """A stream's place in its files. `incoming` and `closing` are set by the caller's thread, all else by the log's."""

    def __init__(self, stream_id: str, folder: Path, on_accepted: Accepted, at: int) -> None:
        self.id = stream_id
        self.incoming: deque[Pcm] = deque()
        self.closing: Future[int] | None = None
        self.offset = at  # samples on disk, once the first chunk is open
        self.written: list[Pcm] = []  # on disk, not yet reported
        self.retry_at = 0.0  # monotonic seconds
        self._folder, self._on_accepted = folder, on_accepted
        self._retry_s = 0.0
        self._pending = EMPTY  # taken from `incoming`, follows `offset`
        self._fd, self._chunk = NO_FILE, 0

    def write(self, sync: bool) -> None:
        """Write all that came in. After an OSError `offset` says how far it got, and the rest stays pending."""
        if self._fd == NO_FILE:
            self.offset = max(self.offset, _logged(self._folder))
            self._open_chunk(sync)
        arrived = [self.incoming.popleft() for _ in range(len(self.incoming))]
        self._pending = np.concatenate([self._pending, *arrived])
        while len(self._pending):
            self._write_piece(sync)
        self._retry_s = self.retry_at = 0.0

    def put_off(self, now: float) -> None:
        self._retry_s = min(max(2 * self._retry_s, FIRST_RETRY_S), LAST_RETRY_S)
        self.retry_at = now + self._retry_s

    def report(self) -> Callable[[], None]:
        pcm = np.concatenate(self.written)
        self.written.clear()
        return partial(self._on_accepted, self.offset, pcm)

    def release(self) -> None:
        if self._fd != NO_FILE:
            os.close(self._fd)
            self._fd = NO_FILE

    def _write_piece(self, sync: bool) -> None:
        """Write up to the end of the chunk. What is not whole, or not synced, is written again in the same place."""
        chunk, inside = divmod(self.offset, CHUNK_SAMPLES)
        if chunk != self._chunk:
            self._open_chunk(sync)
        piece = self._pending[: CHUNK_SAMPLES - inside]
        raw = piece.astype(ON_DISK, copy=False).data
        n = os.pwrite(self._fd, raw, inside * BYTES_PER_SAMPLE) // BYTES_PER_SAMPLE
        if n == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        if sync:
            os.fsync(self._fd)
        self.written.append(piece[:n])
        self._pending = self._pending[n:]
        self.offset += n

    def _open_chunk(self, sync: bool) -> None:
        """Open the chunk that `offset` lies in, and make it end there."""
        chunk, inside = divmod(self.offset, CHUNK_SAMPLES)
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(_chunk_path(self._folder, chunk), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, inside * BYTES_PER_SAMPLE)  # drops half a sample, or makes the hole up to `at`
            if sync:
                for folder in (self._folder, self._folder.parent, self._folder.parent.parent):  # the new names
                    _sync_folder(folder)
        except OSError:
            os.close(fd)
            raise
        self.release()
        self._fd, self._chunk = fd, chunk


def logged_samples(root: Path, call_id: str, stream_id: str) -> int:
    """Samples in a stream's log; 0 if there is none. Raises InvalidInput for an id that is not a UUID."""
    return _logged(_folder(root, call_id, stream_id))


def read_log(root: Path, call_id: str, stream_id: str, start: int, block: int) -> Iterator[Pcm]:
    """The log from sample `start` (>= 0) to where it ends now, in blocks of `block` samples. Raises InvalidInput."""
    folder = _folder(root, call_id, stream_id)
    end = _logged(folder)
    for offset in range(start, end, block):
        yield _read(folder, offset, min(block, end - offset))


def _folder(root: Path, *ids: str) -> Path:
    for an_id in ids:
        if not UUID.fullmatch(an_id):
            raise InvalidInput("This is not one of our ids.", hint="Ids are UUIDs in lower case.", id=an_id)
    return root.joinpath(*ids)


def _chunk_path(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk:06d}.s16"


def _logged(folder: Path) -> int:
    newest = max(folder.glob("[0-9]" * 6 + ".s16"), default=None)
    return 0 if newest is None else int(newest.stem) * CHUNK_SAMPLES + newest.stat().st_size // BYTES_PER_SAMPLE


def _read(folder: Path, start: int, n: int) -> Pcm:
    pcm: Pcm = np.zeros(n, np.int16)
    for chunk in range(start // CHUNK_SAMPLES, (start + n - 1) // CHUNK_SAMPLES + 1):
        border = chunk * CHUNK_SAMPLES
        low, high = max(start, border), min(start + n, border + CHUNK_SAMPLES)
        skip = (low - border) * BYTES_PER_SAMPLE
        with suppress(FileNotFoundError):
            found = np.fromfile(_chunk_path(folder, chunk), ON_DISK, high - low, offset=skip)
            pcm[low - start : low - start + len(found)] = found
    return pcm


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _call_each(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()
