"""How the C library keeps freed memory: glibc gives large buffers back at once, and torch asks for them at every operation.

A page that comes back from the system is cleared first, which takes as long as computing what is then written there.
Elsewhere than on glibc nothing is done.
"""

import contextlib
import ctypes
from collections.abc import Iterator

LIBRARY = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = (2**31 - 1, 2**31 - 1)  # bytes from which on memory is trimmed, and a buffer mapped by itself: never
ADAPTED = (64 << 20, 32 << 20)  # what glibc's own limits grow to in a program that frees large buffers


def keep_freed() -> None:
    """Make the process keep the memory that it frees, from now on."""
    _limit(*KEPT)


@contextlib.contextmanager
def as_usual() -> Iterator[None]:
    """glibc's own limits for a while, as a program has them that does nothing about it."""
    _limit(*ADAPTED)
    if hasattr(LIBRARY, "malloc_trim"):
        LIBRARY.malloc_trim(0)  # or what was kept until now would be used up first
    try:
        yield
    finally:
        keep_freed()


def _limit(trim: int, mapped: int) -> None:
    if hasattr(LIBRARY, "mallopt"):
        LIBRARY.mallopt(M_TRIM_THRESHOLD, trim)
        LIBRARY.mallopt(M_MMAP_THRESHOLD, mapped)
