"""How the process keeps its memory: for what a busy relay or agent does with it."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

MMAP_THRESHOLD: Final = 32 * 1024 * 1024
"""Bytes from which on a piece of memory is one of its own (mallopt(3), the greatest there is on 64
bits). Below it, by default at 128 KiB, each message would be mapped, cleared page by page as it is
first written to, and unmapped again, which takes longer than all else that is done with it."""
TRIM_THRESHOLD: Final = 64 * 1024 * 1024
"""Bytes of free memory at the end of the heap from which on they go back to the system."""
TOP_PAD: Final = 4 * 1024 * 1024
"""Bytes by which the heap grows at the least."""

COLLECT_AT: Final = (10_000, 20, 100)
"""What gc.set_threshold() takes: objects made and not freed, then rounds of the generation below.
What ends here is freed by its references, so that there is little to find; at Python's own 700, 10
and 10 a relay that thousands of agents come to spends a tenth of its time on looking, and holds
everybody up while it looks through all that it has."""

# From malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next message, within ``TRIM_THRESHOLD``.

    Nothing where that library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return
    for name, value in (
        (_M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (_M_TRIM_THRESHOLD, TRIM_THRESHOLD),
        (_M_TOP_PAD, TOP_PAD),
    ):
        mallopt(name, value)


def collect_seldom() -> None:
    """Have Python look for cyclic garbage less often, and never in what the program itself is."""
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)
