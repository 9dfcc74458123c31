"""The job child: one job, one process, which demuxes strangers' files so that the server need not.

    python -m callreel.tasks.child MEMORY_BYTES

The order comes on standard input as one frame, reports go out on standard output, the job's log on standard error. It
ends when its input closes.
"""

from __future__ import annotations

import logging
import os
import resource
import sys

import msgspec

from callreel import logs
from callreel.engines import frames
from callreel.engines.process import end_with_parent
from callreel.errors import CallreelError, InvalidInput
from callreel.tasks import transcribing
from callreel.tasks.messages import Failed, Report, TranscribeOrder

NICE = 10  # below the server and the live engine, above the batch engine that it feeds

log = logging.getLogger("callreel.job")


def main() -> None:
    logs.inherit()
    memory, allowed = int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_AS)[1]
    if allowed != resource.RLIM_INFINITY:
        memory = min(memory, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the reports

    def report(message: Report) -> None:
        reports.write(frames.pack(message))
        reports.flush()

    order = msgspec.msgpack.decode(frames.read(sys.stdin.buffer), type=TranscribeOrder)
    end_with_parent()
    try:
        report(transcribing.run(order, report))
    except MemoryError:
        report(_failed(InvalidInput(f"This file needs more than {memory} bytes of memory")))
    except CallreelError as error:
        report(_failed(error))
    except Exception as error:  # a bug or a library's surprise: the job must say so rather than vanish
        log.exception("the job failed")
        report(Failed(CallreelError(f"{type(error).__name__}: {error}").as_dict(), transient=False))


def _failed(error: CallreelError) -> Failed:
    log.error("%s: %s", error.code, error)
    return Failed(error.as_dict(), error.transient)


if __name__ == "__main__":
    main()
