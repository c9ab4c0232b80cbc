"""Give memory back that long-lived processes no longer use."""

import ctypes
from contextlib import suppress

import pyarrow as pa

__all__ = ["return_memory"]


def return_memory() -> None:
    """Give the operating system back what allocators keep of freed memory, where they can. Takes milliseconds.

    Each thread leaves some behind: a process that goes on for months with threads that come and go would only grow.
    """
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
