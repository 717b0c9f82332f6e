"""Where training's randomness comes from: the seed, and numbers made of it and of what they are for."""

from __future__ import annotations

import hashlib

import torch


def seed_everything(seed: int) -> None:
    """Seed torch's generators on every device. The weights at the start follow; nothing else is drawn."""
    torch.manual_seed(seed)


def seed_of(seed: int, step: int, what: str) -> int:
    """A 63-bit number of its own for what a training step draws.

    >>> seed_of(0, 1, "masks") == seed_of(0, 1, "masks") != seed_of(1, 0, "masks")
    True
    """
    digest = hashlib.blake2b(f"{seed} {step} {what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_device(number: int, device: torch.device) -> None:
    """Seed the generators that a model on ``device`` draws from, and no others: it is done before every step."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)
    elif device.type != "cpu":
        torch.manual_seed(number)
