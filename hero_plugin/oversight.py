"""What a training loop can leave out without an error, said once: HERO's losses, HERO's parameters."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor, nn

LOSSES_LEFT_OUT = (
    "HERO's losses took no part in the last training steps. wrap_criterion(criterion, model.config) adds them to a "
    "DETR's, the wrapped model's compute_loss to EMB's, and loss + model.weighted_hero_loss(inside) to any other. "
    "To train without them, wrap the base with cmtr=False, relevance_weight=0.0, consistency_weight=0.0"
)
PARAMETERS_LEFT_OUT = (
    "the last two steps changed the base and nothing of HERO: the optimizer does not have HERO's parameters. Make it "
    "after wrap_model, or add them: optimizer.add_param_group({'params': model.hero.parameters()})"
)


def acknowledge(relevance: Tensor) -> None:
    """Note that a criterion took this relevance and has no loss for it: nothing says which clips are relevant."""
    getattr(relevance, "reached", []).append(True)


class Oversight:
    """Watch over a model's first training steps, until all is well or something was said. Reads no tensor's values.

    Only what backward passes and optimizers did counts: not how often the model ran, as gradients may be accumulated,
    nor which function computed the losses.
    """

    def __init__(self) -> None:
        self.over = self.read = False
        self.backwards = self.steps = 0
        self.versions: list[int] = []

    def watch(self, base: nn.Module, hero: nn.Module, entry: Tensor, losses: Sequence[Tensor]) -> None:
        """Judge the steps before this forward, and watch its own backward.

        Args:
            base: its parameters change where an optimizer has them; torch counts the changes of every tensor.
            hero: these should, too.
            entry: what HERO makes of clips or words: the last that a backward gets to.
            losses: what HERO's losses are made of, which a backward should have passed; none where they weigh nothing.
        """
        if self.over:
            return
        before = self.versions
        self.versions = [sum(p._version for p in part.parameters() if p.requires_grad) for part in (base, hero)]
        moved = [now > then for now, then in zip(self.versions, before, strict=False)]
        self.steps += moved == [True, False]
        # Without its losses, HERO may have no gradient and so nothing to step by: that is said first.
        said = "" if self.read or self.backwards < 2 else LOSSES_LEFT_OUT
        if self.read and self.steps >= 2:
            said = PARAMETERS_LEFT_OUT
        if said:
            warnings.warn(said, stacklevel=2)
        self.over = bool(said) or (self.read and moved[1:] == [True])
        reached = [] if losses else [True]
        for each in losses:
            each.register_hook(lambda gradient: reached.append(True))
            each.reached = reached  # type: ignore[attr-defined]  # not in a closure, which would hold the graph

        def entered(gradient: Tensor) -> None:
            self.read, self.backwards = self.read or bool(reached), self.backwards + 1

        entry.register_hook(entered)
