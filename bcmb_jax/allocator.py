# SPDX-License-Identifier: Apache-2.0
"""What the C library does with freed memory: kept for the next step, or given back at once."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's <malloc.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of unmapping them; elsewhere nothing happens.

    Every step allocates the same large temporaries. Mapped afresh each time, their page faults cost
    a small model a quarter of its speed on a CPU.
    """
    _mallopt(M_MMAP_MAX, 0)
    _mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return what was freed so far, which after a pass over large tensors is a lot."""
    if _libc and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def _mallopt(parameter: int, value: int) -> None:
    if _libc and hasattr(_libc, "mallopt"):
        _libc.mallopt(parameter, value)
