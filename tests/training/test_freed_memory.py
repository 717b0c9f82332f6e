"""What is asked of the C library's allocator, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from hero_plugin.integrations.training.distributed import keep_freed_memory
keep_freed_memory(torch.device("cpu"))
for _ in range(20):  # the first few may each be cut from a new place
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    """Pages that the system had to hand out for five tensors of 64 MiB, one after the other."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    out = subprocess.run(
        [sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, env=clean | environment
    )
    return int(out.stdout)


@pytest.mark.slow
@pytest.mark.skipif(
    not (sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")), reason="needs glibc"
)
def test_a_freed_tensor_serves_the_next_unless_the_environment_says_otherwise():
    assert 100 * faults() < faults(MALLOC_MMAP_THRESHOLD_="1000000")
