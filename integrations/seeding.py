"""Seeding: every random draw of a training derives from the seed and the purpose of the draw."""

from __future__ import annotations

import hashlib

import torch


def seed_everything(seed: int) -> None:
    """Seed torch's generators on every device. The weights at the start follow; nothing else is drawn."""
    torch.manual_seed(seed)


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
