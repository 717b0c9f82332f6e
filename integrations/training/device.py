"""The device: its choice, number format, memory and seeds. Every random draw derives from a seed and its purpose."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.process import Rank

Amp = Literal["none", "bf16", "fp16"]


def choose_device(name: str = "auto", rank: Rank | None = None, *, shared: bool = False) -> torch.device:
    """Return the device of this name, for this process.

    Args:
        name: "auto" is CUDA where there is one, else the CPU (bit-reproducible); any name torch knows works.
        rank: This process, where there are several: it gets the GPU of its number on this machine.
        shared: Let processes share GPUs, in turns, or share the named one.

    Raises:
        UserError: The device is unknown, or this machine has none for this process.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if rank is not None and rank.size > 1 and shared and name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{rank.local % torch.cuda.device_count()}"
    elif rank is not None and rank.size > 1 and not shared and name.startswith("cuda"):
        if name != "cuda":
            raise UserError(f"--device {name} would put all {rank.size} processes on one GPU; give --device cuda")
        if rank.local >= torch.cuda.device_count():
            raise UserError(
                f"process {rank.local} of this machine would use its own GPU, and there are "
                f"{torch.cuda.device_count()}: give torchrun --nproc-per-node {max(1, torch.cuda.device_count())}"
            )
        name = f"cuda:{rank.local}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used here ({reason}); try --device auto") from error
    return device


def autocast(amp: Amp, device: torch.device) -> AbstractContextManager[Any]:
    """Set the number format of the forward pass. Weights, gradients and the optimizer stay in float32."""
    if amp == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[amp])


def loss_scaler(amp: Amp, device: torch.device) -> Any:
    """Return a gradient scaler; it acts for fp16 only, whose small gradients would vanish unscaled."""
    if amp == "fp16" and device.type != "cuda":
        raise UserError(f"--amp fp16 needs a CUDA device, got {device}; use --amp bf16, or none")
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    return torch.cuda.amp.GradScaler(enabled=amp == "fp16")


def keep_freed_memory(device: torch.device) -> bool:
    """Ask glibc's allocator to keep large freed blocks, for work on the CPU; return whether it will.

    By default it gives every tensor of 32 MiB or more back to the system, which clears each page again when the next
    tensor touches it. ``MALLOC_*`` variables of the environment take precedence.
    """
    unsupported = device.type != "cpu" or not sys.platform.startswith("linux")
    if unsupported or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    trim_threshold, mmap_max = -1, -4  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, or one that does nothing
    return mallopt is not None and all([mallopt(mmap_max, 0), mallopt(trim_threshold, 2**31 - 1)])


def seed_of(seed: int, step: int, what: str) -> int:
    """Return a 63-bit seed for one kind of draw of one training step.

    >>> seed_of(0, 1, "masks") == seed_of(0, 1, "masks") != seed_of(1, 0, "masks")
    True
    """
    digest = hashlib.blake2b(f"{seed} {step} {what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_device(number: int, device: torch.device) -> None:
    """Seed the generators that a model on ``device`` draws from, and no others: this runs before every step."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    elif device.type != "cpu":
        torch.manual_seed(number)
