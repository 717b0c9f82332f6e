"""On the CPU, memory that one step frees serves the next."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory(device: torch.device) -> bool:
    """For work on the CPU, ask glibc's allocator not to give large blocks back to the system; whether it will.

    By default it does so with every tensor of 32 MiB or more, and the system clears each page again when the next
    tensor touches it. What MALLOC_* variables of the environment say stays.
    """
    elsewhere = device.type != "cpu" or not sys.platform.startswith("linux")
    if elsewhere or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, or one that does nothing
    return mallopt is not None and all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, LARGEST)])
