"""Reuse of freed memory on the CPU."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory(device: torch.device) -> bool:
    """Ask glibc's allocator to keep large freed blocks, for work on the CPU; return whether it will.

    By default it gives every tensor of 32 MiB or more back to the system, which clears each page again when the next
    tensor touches it. ``MALLOC_*`` variables of the environment take precedence.
    """
    unsupported = device.type != "cpu" or not sys.platform.startswith("linux")
    if unsupported or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, or one that does nothing
    return mallopt is not None and all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, LARGEST)])
