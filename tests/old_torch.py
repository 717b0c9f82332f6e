"""What the oldest torch that hero-plugin supports cannot do itself."""

from __future__ import annotations

import pytest
import torch
from packaging.version import Version

TORCH = Version(torch.__version__)

needs_compiler = pytest.mark.skipif(
    Version("2.3") > TORCH, reason="torch.compile traces neither dataclasses nor our code before 2.3"
)
fake_tensors = pytest.mark.skipif(Version("2.3") > TORCH, reason="fake tensors do not take part in this before 2.3")
half_on_cpu = pytest.mark.skipif(Version("2.3") > TORCH, reason="torch has no half precision on CPU before 2.3")
counts_flops = pytest.mark.skipif(Version("2.4") > TORCH, reason="torch counts FLOPs in another way before 2.4")
HALF_TYPES = [torch.bfloat16, pytest.param(torch.float16, marks=half_on_cpu)]
