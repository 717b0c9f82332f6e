"""The wrapped model is the paper: outputs, losses and gradients equal those of plain loops, in double precision."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hero_plugin import HeroConfig, HeroModel
from hero_plugin.integrations.tools.bench.models import (
    LiteralHero,
    Variant,
    build_bare,
    draw_masked,
    random_batch,
    recipe_of,
)
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.task import Batch, Task
from tests.adapters.detr_bases import flat, without_dropout
from tests.core.bases import lengths_mask, shake
from tests.tools.bench.small import small

EXACT = {"rtol": 1e-10, "atol": 1e-10}
CONFIGS = {
    "default": HeroConfig(dropout=0.0),
    "the paper": HeroConfig.paper(dropout=0.0),
    "projections": HeroConfig(dropout=0.0, projections=True, calibrate=False, consistency="bernoulli"),
    "no SGVF": HeroConfig(dropout=0.0, sgvf=False, stride=1),
    "no CMTR": HeroConfig(dropout=0.0, cmtr=False),
}
INPUTS = {
    "emb": ("words", None, "video", "video_mask", "word_mask"),
    "detr": ("src_txt", "src_txt_mask", "src_vid", "src_vid_mask"),
}


def both(base: str, hero: HeroConfig, levels: int, name: str = "hero") -> tuple[Task, Task, Batch]:
    """HERO and the literal paper with the same weights, far from where they start, and a batch; without dropout."""
    sizes = small(base)
    ours: Any = build_bare(base, sizes, seed=0).task(Variant(name, levels), hero, recipe_of(base, sizes))
    model = shake(without_dropout(ours.model.double()), 0.1)
    literal = copy.copy(ours)
    literal.model = LiteralHero(copy.deepcopy(model.base), model.config, model.adapter)
    literal.model.load_state_dict(model.state_dict())
    batch = random_batch(base, sizes, seed=1)
    return ours, literal, {key: x.double() if x.is_floating_point() else x for key, x in batch.items()}


def forward(base: str, model: nn.Module, batch: Batch) -> Any:
    names = INPUTS.get(base, INPUTS["detr"])
    torch.manual_seed(3)  # the same words are masked
    return model(*(None if name is None else batch[name] for name in names))


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def comparable(base: str, outputs: Any) -> dict[str, Tensor]:
    """Every output but the score of QD-DETR's last sample against another's words.

    It pairs each sample with the next one's words, the last with the first's. Folded level-major, the last of a level
    meets the first sample's words as the next level has them, where the loop has them of its own level.
    """
    tensors = {name: tensor for name, tensor in flat(outputs).items() if not name.startswith(".hero")}
    if base == "qd_detr":
        tensors[".saliency_scores_neg"] = tensors[".saliency_scores_neg"][:-1]
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("base", BASES)
def test_a_training_step_is_the_papers(base, config):
    ours, literal, batch = both(base, CONFIGS[config], levels=4)
    seen = []
    for task in (ours, literal):
        model: Any = task.model
        outputs = comparable(base, forward(base, model, batch))
        relevance, masked = model.last_forward.relevance, model.last_forward.masked_relevance
        assert (masked is None) == (not model.config.cmtr)
        labels = (torch.arange(relevance.shape[1]) < 5).double().expand_as(relevance)
        losses = model.compute_hero_losses(labels)
        # Each element counts differently; padded places that hold -1e30 do not.
        smooth = [x[x > -1e4].tanh() for x in outputs.values() if x.requires_grad]
        total = sum((x * torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype)).sum() for x in smooth)
        seen.append((outputs, relevance, masked, losses, gradients(model, total + sum(losses.values()))))
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    assert {"hero.hem.layers.0.output.weight", "hero.aggregation.templates"} <= set(seen[0][-1])


@pytest.mark.parametrize("base", [base for base in BASES if base != "qd_detr"])
def test_the_training_scripts_loss_is_the_same(base):
    """QD-DETR's trains on the score that differs, see `comparable`."""
    ours, literal, batch = both(base, HeroConfig(dropout=0.0), levels=2)
    seen = []
    for task in (ours, literal):
        torch.manual_seed(3)
        losses = task.losses(task.model, batch, epoch=0)
        assert {"loss_relevance", "loss_consistency"} <= set(losses)
        seen.append(({name: loss.detach() for name, loss in losses.items()}, gradients(task.model, losses["loss"])))
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("levels", [1, 2, 8])
@pytest.mark.parametrize("base", BASES)
@torch.no_grad()
def test_inference_is_the_papers(base, levels):
    ours, literal, batch = both(base, HeroConfig(), levels)
    models: list[HeroModel] = [task.model.eval() for task in (ours, literal)]
    outputs = [comparable(base, forward(base, model, batch)) for model in models]
    torch.testing.assert_close(*outputs, **EXACT)
    torch.testing.assert_close(models[0].relevance, models[1].relevance, **EXACT)


@pytest.mark.parametrize("base", ["emb", "qd_detr"])
def test_relevance_of_the_pair(base):
    ours, literal, batch = both(base, HeroConfig(dropout=0.0), levels=2, name="pair")
    seen = []
    for task in (ours, literal):
        forward(base, task.model, batch)
        last = task.model.last_forward
        seen.append((last.relevance, last.masked_relevance))
    torch.testing.assert_close(*seen, **EXACT)


def test_words_are_drawn_by_the_same_rule():
    words = (0, 1, 2, 3, 9)
    real = lengths_mask(words).bool()
    for seed in range(200):
        torch.manual_seed(seed)
        dropped = draw_masked(real, 0.3)
        assert not (dropped & ~real).any()
        for row, count in zip(dropped, words, strict=True):
            assert count < 2 or 0 < row.sum() < count
