"""Where training's randomness is set, kept and restored: torch's generators, and no other."""

from __future__ import annotations

from typing import Any

import torch


def seed_everything(seed: int) -> None:
    """Seed torch's generators on every device. Weights, dropout and word masks follow; nothing else is drawn."""
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of torch's generators, as tensors that ``torch.load(weights_only=True)`` reads back."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Continue where :func:`random_state` was taken. A state from a machine with other devices restores the CPU's."""
    torch.set_rng_state(state["cpu"].cpu())
    kept = state.get("cuda", [])
    if kept and torch.cuda.is_available() and len(kept) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in kept])
