"""What stands in for parts of a base while only its saliency scores are wanted.

None remembers anything from one forward to the next: those that remember within one are made for that one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin import First


class Progress:
    """How far one forward has come."""

    def __init__(self) -> None:
        self.decoded = False


class NoLayer(First):
    """A decoder layer that leaves the queries as they are."""

    def __init__(self, progress: Progress | None = None) -> None:
        super().__init__()
        self.progress = progress

    def forward(self, value: Any, *rest: Any, **options: Any) -> Any:
        """value, ... -> value."""
        if self.progress is not None:
            self.progress.decoded = True
        return value


class Encoded(nn.Module):
    """An encoder that has nothing to do once the decoder has been reached: it repeats its last answer.

    What comes after the decoder are negative pairs, whose answer has the same shape, and which nobody will read.
    """

    def __init__(self, encoder: nn.Module, progress: Progress) -> None:
        super().__init__()
        self.encoder, self.progress = encoder, progress
        self.answer: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the encoder's."""
        if not self.progress.decoded:
            self.answer = self.encoder(*args, **kwargs)
        return self.answer


class Once(nn.Module):
    """A module that answers every call as it did the first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.called, self.answer = False, None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's."""
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
        """src, pos_embed: (N*B, L, D), mask: (N*B, L) -> the CIM's answers, joined; ``negative_idx`` counts on."""
        parts = zip(*(part.chunk(self.levels) for part in (src, mask, pos_embed)), strict=True)
        answers = [self.module(one, real, query_embed, place, **options) for one, real, place in parts]
        states, references, memory, whole, similarities = zip(*answers, strict=True)
        joined = {}
        for name in similarities[0]:
            of_levels = [similarity[name] for similarity in similarities]
            if name == "negative_idx":
                of_levels = [chosen + level * len(chosen) for level, chosen in enumerate(of_levels)]
            joined[name] = joined_samples(of_levels)
        return torch.cat(states, 1), torch.cat(references, 1), torch.cat(memory), torch.cat(whole), joined


def joined_samples(of_levels: list[Any]) -> Any:
    """Tensors (B, ...) of N levels, or tuples of such, -> (N*B, ...)."""
    if isinstance(of_levels[0], tuple):
        return tuple(torch.cat(tensors) for tensors in zip(*of_levels, strict=True))
    return torch.cat(of_levels)


class OneSlot(nn.Module):
    """Slot attention that takes the first clip for its only slot."""

    def forward(self, clips: Tensor, *rest: Any, **options: Any) -> Tensor:
        """(B, T, D), ... -> (B, 1, D)."""
        return clips[:, :1]


def nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for a method whose result is known already."""


def has(base: nn.Module, path: str) -> bool:
    """Whether there is a module at this path."""
    try:
        base.get_submodule(path)
    except AttributeError:
        return False
    return True


def skip_layers(base: nn.Module, path: str, progress: Progress | None = None) -> dict[str, nn.Module]:
    """As many layers that do nothing as there are at ``path``, under that path; none where a fork has no such place.

    The decoder around them runs on, so that whatever shape its outputs have, they have it still.
    """
    if not has(base, path):
        return {}
    return {path: nn.ModuleList(NoLayer(progress) for _ in base.get_submodule(path).children())}
