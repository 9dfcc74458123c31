"""The C library's heap, told to keep the large blocks that a model takes and gives back in every layer."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_BYTES = 1 << 30  # of a block that is not asked of the kernel each time
KEPT_BYTES = 160 << 20  # free at the top of the heap: an attention matrix of `small`, and not what a long job leaves


def keep_large_blocks() -> None:
    """From here on freed memory stays with this process, up to KEPT_BYTES of it at the top of the heap.

    By default a block of more than 32 MB is asked of the kernel each time and given back at once; it comes as pages of
    zeros, each one a fault. An attention matrix is larger, and there is one a layer: a quarter to a third of an
    encoder's CPU time. One arena for all threads, as the others hold no block of more than 64 MB. On other C libraries
    nothing happens.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (
            (M_MMAP_THRESHOLD, LARGEST_BYTES),
            (M_TRIM_THRESHOLD, KEPT_BYTES),
            (M_ARENA_MAX, 1),
        ):
            mallopt(parameter, value)
