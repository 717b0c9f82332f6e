"""A batch norm in the base learns from the words as they are, once a step, as without HERO."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hero_plugin import wrap_model
from tests.core.bases import DIM, dict_base, inputs, total_loss
from tests.old_torch import needs_compiler


class Normalised(nn.Module):
    """A fuser whose output is normalised over the batch."""

    def __init__(self, fuser: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.fuser, self.norm = fuser, norm

    def forward(self, *pair):
        clips = self.fuser(*pair)
        if isinstance(self.norm, nn.BatchNorm1d):
            return self.norm(clips.flatten(0, 1)).view_as(clips)
        return self.norm(clips.transpose(1, 2)).transpose(1, 2)


def build(norm=nn.BatchNorm1d, **choices):
    base = dict_base()
    base.fuser = Normalised(base.fuser, norm(DIM, track_running_stats=True))
    return wrap_model(base, dropout=0.0, **choices).train()


def statistics(model):
    return {name: value.clone() for name, value in model.base.fuser.norm.named_buffers()}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.InstanceNorm1d])
def test_masked_words_do_not_count(norm):
    """The same statistics as of training without masked words, and of the same normalisation."""
    batch, found = inputs(), {}
    for cmtr in (True, False):
        torch.manual_seed(0)
        model = build(norm, cmtr=cmtr)
        total_loss(model, model(*batch), batch.video_mask).backward()
        found[cmtr] = statistics(model)
    assert found[True].keys() == found[False].keys() >= {"running_mean", "running_var"}
    assert all(torch.equal(value, found[False][name]) for name, value in found[True].items())
    assert found[True]["running_mean"].any()


def test_recomputing_counts_nothing_again():
    """Each level runs by itself, so that there is an update for each; the backward adds none, however often it runs."""
    model, batch = build(checkpoint=True, levels=2), inputs()
    loss = total_loss(model, model(*batch), batch.video_mask)
    before = statistics(model)
    assert before["num_batches_tracked"] == 2
    loss.backward(retain_graph=True)
    loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())


class Counting(nn.Module):
    """A fuser that keeps prototypes of its own making, in place and not, in training."""

    def __init__(self, fuser: nn.Module) -> None:
        super().__init__()
        self.fuser = fuser
        self.register_buffer("prototype", torch.zeros(DIM))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("nothing", None)
        self.steps, self.penalty = 0, torch.zeros(())

    def forward(self, *pair):
        clips = self.fuser(*pair)
        self.steps, self.penalty = self.steps + 1, clips.square().mean()
        if self.training:
            self.prototype.mul_(0.9).add_(0.1 * clips.detach().mean((0, 1)))
            self.count = self.count + 1
        return clips


@pytest.mark.parametrize("checkpoint", [False, True])
def test_other_buffers_that_the_base_updates(checkpoint):
    batch, found = inputs(), {}
    for cmtr in (True, False):
        torch.manual_seed(0)
        base = dict_base()
        base.fuser = Counting(base.fuser)
        model = wrap_model(base, dropout=0.0, cmtr=cmtr, checkpoint=checkpoint, levels=2).train()
        total_loss(model, model(*batch), batch.video_mask).backward()
        found[cmtr] = base.fuser.prototype, base.fuser.penalty
        assert base.fuser.count == base.fuser.steps == (2 if checkpoint else 1)
    for masked, unmasked in zip(found[True], found[False], strict=True):
        assert torch.equal(masked, unmasked) and masked.any()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_a_compiled_model_counts_the_same(recompute):
    torch._dynamo.reset()
    batch, found = inputs(), []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = build(checkpoint=recompute, levels=1)
        run = torch.compile(model, backend="aot_eager" if recompute else "eager", fullgraph=True) if compiled else model
        total_loss(model, run(*batch), batch.video_mask).backward()
        found.append(statistics(model))
    assert found[0]["num_batches_tracked"] == 1
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])
    torch._dynamo.reset()
