"""Engine processes: started, watched, started again. They end when this process ends, however it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

import msgspec

from callreel import metrics
from callreel.engines.base import EngineSpec
from callreel.engines.process import ABANDONED
from callreel.errors import InvalidInput

log = logging.getLogger("callreel.server")

BATCH_NICE = 15  # the batch class yields the CPU to live work
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
STEADY_S = 10.0  # a child that lived so long starts again at once
MAX_SOCKET_PATH = 100  # bytes; sun_path holds 104 on some systems, 108 on Linux
# A library's own threads only get into each other's way: parallelism comes from decodes side by side.
CHILD_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class EngineProcess:
    """One engine child. Its listening socket is ours, so callers wait in its backlog while it is started again."""

    def __init__(self, role: str, spec: EngineSpec, path: Path, *, nice: int = 0) -> None:
        self.role, self.spec, self._nice = role, spec, nice
        self.path = path
        if len(os.fsencode(self.path)) > MAX_SOCKET_PATH:
            raise InvalidInput(
                f"The data folder's path is too long for a socket: {self.path}",
                hint="Choose a shorter one with --data-dir",
            )
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.path.unlink(missing_ok=True)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self._watch: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Of the child that runs now; None before the first."""
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        await self._spawn()
        self._watch = asyncio.create_task(self._keep_alive(), name=f"engine-{self.role}")

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    async def _spawn(self) -> None:
        fd = self._listener.fileno()
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "callreel.engines.process",
            str(fd),
            msgspec.json.encode(self.spec).decode(),
            str(self._nice),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(fd,),
            env={**os.environ, **CHILD_ENVIRONMENT},
        )

    async def _keep_alive(self) -> None:
        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            assert self._child is not None
            began = loop.time()
            code = await self._child.wait()
            if code == ABANDONED:
                log.info("the %s engine ended in the middle of work that nobody waited for any more", self.role)
                await self._called()
                pause_s = FIRST_PAUSE_S
            else:
                metrics.engine_restarts.labels(self.role).inc()
                log.error("the %s engine ended with %d; starting it again", self.role, code)
                pause_s = FIRST_PAUSE_S if loop.time() - began > STEADY_S else min(2 * pause_s, LONGEST_PAUSE_S)
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await self._spawn()
                    break
                except OSError as error:  # the machine is out of processes, memory or files
                    log.error("the %s engine cannot be started: %s", self.role, error)
                    pause_s = LONGEST_PAUSE_S

    async def _called(self) -> None:
        """Wait until somebody is in the backlog of our socket."""
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        loop.add_reader(self._listener, called.set)
        try:
            await called.wait()
        finally:
            loop.remove_reader(self._listener)
