"""One run of a job in a process of its own: started, listened to, ended."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from callreel.engines import frames
from callreel.errors import CallreelError
from callreel.jobs.store import Job
from callreel.tasks.messages import Failed, Outcome, Progressed, Report, Spoken, Transcribed, TranscribeOrder


class JobDied(CallreelError):
    """The job's process ended without a word: it was killed, or it ran out of memory."""

    code = "job_died"
    transient = True


@dataclass(eq=False, slots=True)
class Attempt:
    """Once `over` its process is not wanted any more, also if it is only being started.

    `warnings` and `cache_key` belong to its result: known once its engine is.
    """

    job: Job
    child: Process | None = None
    over: bool = False
    cancelled: bool = False
    warnings: tuple[str, ...] = ()
    cache_key: str | None = None

    def end(self) -> None:
        self.over = True
        if self.child is not None and self.child.returncode is None:
            self.child.kill()

    async def run(
        self,
        order: TranscribeOrder,
        on_report: Callable[[Progressed | Spoken], Awaitable[None]],
        *,
        log_file: Path,
        memory_bytes: int,
    ) -> Outcome:
        """Run the process to its end; it dies with this task. What it logs goes to `log_file`. Raises JobDied."""
        with log_file.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "callreel.tasks.child",
                str(memory_bytes),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        assert child.stdin is not None and child.stdout is not None
        self.child = child
        try:
            if self.over:
                child.kill()
            child.stdin.write(frames.pack(order))
            while True:
                body = await frames.receive_async(child.stdout)
                report: Report = msgspec.msgpack.decode(body, type=Report)
                if isinstance(report, Transcribed | Failed):
                    return report
                await on_report(report)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise JobDied(exit_code=await child.wait()) from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
