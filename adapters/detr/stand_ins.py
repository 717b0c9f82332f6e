"""Stub modules that skip the parts of a forward that saliency does not need.

None remembers anything from one forward to the next: those that remember within one are made for that one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin import PassThrough


class ForwardState:
    """What the stubs of one forward share: whether its decoder has been reached."""

    def __init__(self) -> None:
        self.decoder_reached = False


class SkipLayer(PassThrough):
    """A decoder layer that leaves the queries as they are, and notes in ``state`` that it was reached."""

    def __init__(self, state: ForwardState | None = None) -> None:
        super().__init__()
        self.state = state

    def forward(self, value: Any, *rest: Any, **options: Any) -> Any:
        """Return ``value``."""
        if self.state is not None:
            self.state.decoder_reached = True
        return value


class CachedEncoder(nn.Module):
    """An encoder that repeats its last answer once the decoder has been reached.

    What a base encodes after its decoder has run are negative pairs. Their encoding has the same shape, and nobody
    will read it.
    """

    def __init__(self, encoder: nn.Module, state: ForwardState) -> None:
        super().__init__()
        self.encoder, self.state = encoder, state
        self.answer: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Encode, or return the last answer; arguments and result are the encoder's."""
        if not self.state.decoder_reached:
            self.answer = self.encoder(*args, **kwargs)
        return self.answer


class CallOnce(nn.Module):
    """A module that answers every call as it did the first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.called, self.answer = False, None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module, or return its first answer."""
        if not self.called:
            self.called, self.answer = True, self.module(*args, **kwargs)
        return self.answer


class LevelByLevel(nn.Module):
    """UVCOM's CIM, given the levels of a folded batch one after the other, because it compares a batch's samples.

    Args:
        module: the CIM.
        levels: N, how many levels the batch holds.
    """

    def __init__(self, module: nn.Module, levels: int) -> None:
        super().__init__()
        self.module, self.levels = module, levels

    def forward(self, src: Tensor, mask: Tensor, query_embed: Tensor, pos_embed: Tensor, **options: Any) -> Any:
        """Run the CIM once per level and join its answers along the batch.

        Args:
            src: (N*B, L, D).
            mask: (N*B, L).
            query_embed: as the CIM's, shared by all levels.
            pos_embed: (N*B, L, D).
            **options: passed on.
        """
        parts = zip(*(part.chunk(self.levels) for part in (src, mask, pos_embed)), strict=True)
        answers = [self.module(one, real, query_embed, place, **options) for one, real, place in parts]
        states, references, memory, whole, similarities = zip(*answers, strict=True)
        joined = {}
        for name in similarities[0]:
            of_levels = [similarity[name] for similarity in similarities]
            if name == "negative_idx":  # indices of samples: those of level i start at i * B in the folded batch
                of_levels = [chosen + level * len(chosen) for level, chosen in enumerate(of_levels)]
            joined[name] = join_levels(of_levels)
        return torch.cat(states, 1), torch.cat(references, 1), torch.cat(memory), torch.cat(whole), joined


def join_levels(of_levels: list[Any]) -> Any:
    """Join N tensors (B, ...), or N tuples of such, to (N*B, ...)."""
    if isinstance(of_levels[0], tuple):
        return tuple(torch.cat(tensors) for tensors in zip(*of_levels, strict=True))
    return torch.cat(of_levels)


class FirstClipSlot(nn.Module):
    """Slot attention that takes the first clip for its only slot: the right shape for next to no work."""

    def forward(self, clips: Tensor, *rest: Any, **options: Any) -> Tensor:
        """Return the first clip: (B, T, D) -> (B, 1, D)."""
        return clips[:, :1]


def return_none(*args: Any, **kwargs: Any) -> None:
    """Return None, in place of a method whose result is known already."""


def has_module(base: nn.Module, path: str) -> bool:
    """Return whether there is a module at this dotted path."""
    try:
        base.get_submodule(path)
    except AttributeError:
        return False
    return True


def skip_layers(base: nn.Module, path: str, state: ForwardState | None = None) -> dict[str, nn.Module]:
    """Return as many ``SkipLayer`` as there are layers at ``path``, by that path; empty where a fork has no such place.

    The decoder around them runs on, so that its outputs keep their shape, whatever that is.
    """
    if not has_module(base, path):
        return {}
    return {path: nn.ModuleList(SkipLayer(state) for _ in base.get_submodule(path).children())}
