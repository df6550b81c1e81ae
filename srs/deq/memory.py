"""How glibc keeps freed memory: it gives large buffers back at once, and torch asks for them at every operation.

A page that comes back from the system is cleared first, which takes as long as computing what is then written there.
"""

import contextlib
import ctypes
from collections.abc import Iterator

LIBRARY = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
NEVER = 2**31 - 1


def keep_freed() -> None:
    """Make the process keep the memory that it frees, from now on."""
    _limit(NEVER, NEVER)


@contextlib.contextmanager
def as_usual() -> Iterator[None]:
    """The limits for a while that a program has which frees large buffers and does nothing about it."""
    _limit(64 << 20, 32 << 20)
    if hasattr(LIBRARY, "malloc_trim"):
        LIBRARY.malloc_trim(0)  # or what was kept until now would be used up first
    yield
    keep_freed()


def _limit(trim: int, mapped: int) -> None:
    if hasattr(LIBRARY, "mallopt"):
        LIBRARY.mallopt(M_TRIM_THRESHOLD, trim)
        LIBRARY.mallopt(M_MMAP_THRESHOLD, mapped)
