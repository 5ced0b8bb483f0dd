"""Settings of the learner's process that speed depends on: threads, and what malloc does with freed memory."""

import ctypes
import os
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_LARGE = 1 << 30


def set_threads(threads: int) -> None:
    """Let torch use `threads` threads; 0 means all cores of this process."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))


def keep_freed_memory() -> None:
    """Keep freed blocks for the next update instead of handing them back to the kernel; glibc only.

    Page faults on memory that was just handed back cost up to a quarter of an update.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, _LARGE)
        libc.mallopt(_MMAP_MAX, 0)
