"""Memory that tensors leave behind is kept for the next ones."""

import ctypes
import sys

LARGEST = 32 * 2**20
"""Bytes of the largest block that is kept; glibc itself never comes to more."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Their numbers in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let the C library keep blocks up to `LARGEST` that were freed, instead of giving them back at once.

    A gradient step frees what it needed and asks for the same again: a page that was given back is a fault
    of the processor and 4 kB of zeros, which takes a tenth of a step of networks of 256. Done for the whole
    process; nothing happens where the C library is not glibc. glibc comes to the same two numbers by itself
    once a block of that size was freed.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, 2 * LARGEST)
