"""A step never asks what is in a tensor where its base does not: on a GPU, every such question waits for the device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from hero_plugin import HeroConfig, HeroModel
from hero_plugin.integrations.tools.bench.measure import Operations
from hero_plugin.integrations.tools.bench.models import Variant, build_bare, random_batch, recipe_of
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.batching import to_device
from hero_plugin.integrations.training.detr import draw_targets
from tests.old_torch import counts_flops
from tests.tools.bench.small import small

pytestmark = counts_flops

QUESTIONS = ("cpu", "item", "tolist", "numpy", "nonzero", "argwhere", "is_nonzero", "equal", "masked_select", "unique")
CONVERSIONS = ("__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__")
READING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "equal.default", "repeat_interleave.Tensor")
MATCHING = {"tolist": 1, "cpu": 1, "numpy": 2}
"""What a DETR's own step asks: for the costs, which are solved on the CPU (numpy once a decoder layer), and how many
moments each query has, of what stays there."""
PACKING = {"cpu": 1}
"""What EMB's own step asks: the videos' lengths, by which its LSTMs pack on a GPU."""


class Reading(TorchFunctionMode):
    """Counts Python calls whose answer depends on a tensor's values, or that move a tensor to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        by_mask = name in ("__getitem__", "__setitem__") and any(map(is_mask, places(args[1])))
        if name in QUESTIONS or name in CONVERSIONS or by_mask:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def places(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def questions(base: str, model: Variant, **choices: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Asked in the forward, the losses and the backward: from Python, and by operators."""
    sizes = small(base)
    task = build_bare(base, sizes, seed=0).task(model, HeroConfig(**choices), recipe_of(base, sizes))
    batch = random_batch(base, sizes, seed=0)
    if isinstance(task.model, HeroModel):
        seen = task.model._oversight
        seen.masks_seen = seen.labels_seen = True  # it looks at the first masks and labels, once
    with Operations() as operations, Reading() as reading:
        task.losses(task.model.train(), batch, epoch=0)["loss"].backward()
    operators = {name: n for name, n in operations.counts.items() if any(part in name for part in READING)}
    return dict(reading.counts), operators


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_hero_asks_nothing_that_its_base_does_not(base):
    plain = questions(base, Variant("plain"))
    assert plain == (PACKING if base == "emb" else MATCHING, {})
    for name in ("hero", "pair"):
        assert questions(base, Variant(name, 2)) == plain
    # With checkpointing EMB's predictor runs for each level alone (and again in the backward, which is not seen here).
    assert questions(base, Variant("checkpoint", 2)) == (({"cpu": 2}, {}) if base == "emb" else plain)
    assert questions(base, Variant("hero", 2), projections=True, consistency="bernoulli", gate="sigmoid") == plain


def test_questions_are_seen():
    x, mask = torch.arange(3.0), torch.tensor([True, False, True])
    with Operations() as operations, Reading() as reading:
        assert x.max() > 1 and int(x[1]) == 1
        x[mask], x.cpu(), x.tolist(), x.nonzero(), x.sum().item()
    assert reading.counts == Counter(["__bool__", "__int__", "__getitem__", "cpu", "tolist", "nonzero", "item"])
    assert operations.counts["aten.nonzero.default"] == 1 and operations.counts["aten._local_scalar_dense.default"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("base", ["moment_detr", "qd_detr", "tr_detr"])
def test_a_step_runs_where_nothing_can_be_read(base):
    """On the meta device, which has shapes and no values: targets, forward, HERO's losses and backward."""
    sizes = small(base)
    model: Any = build_bare(base, sizes, seed=0).task(Variant("hero", 4), HeroConfig(), recipe_of(base, sizes)).model
    batch = to_device(random_batch(base, sizes, seed=0), torch.device("meta"))
    assert len(draw_targets(batch)["span_labels"]) == sizes.batch
    outputs = model.to("meta").train()(
        *(batch[name] for name in ("src_txt", "src_txt_mask", "src_vid", "src_vid_mask"))
    )
    losses = model.compute_hero_losses(batch["relevant"])
    (outputs["pred_logits"].mean() + sum(losses.values())).backward()
    assert losses.keys() == {"loss_relevance", "loss_consistency"}
    assert all(each.grad is not None for each in model.hero.parameters())
