"""Choice of the device and of the number format."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.ranks import Rank

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
