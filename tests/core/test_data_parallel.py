"""Promise 6: DistributedDataParallel without find_unused_parameters."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from hero_plugin import HeroConfig, hero_state_dict, unwrap_model, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, total_loss

CASES = {
    "default": (emb.emb, HeroConfig(stride=1)),
    "recomputed": (emb.emb, HeroConfig(stride=1, checkpoint=True)),
    "paper": (dict_base, HeroConfig.paper(projections=True)),
    "pair": (dict_base, HeroConfig(relevance="pair")),
    "weights of the query, noise": (dict_base, HeroConfig(level_weights="query", perturb="noise")),
    "moment_detr": (detr.moment_detr, HeroConfig(stride=1)),
    "qd_detr": (detr.qd_detr, HeroConfig(stride=1, checkpoint=True)),
    "tr_detr": (detr.tr_detr, HeroConfig(stride=1)),
    "frozen emb": (emb.emb, HeroConfig(stride=1), {"freeze_base": True}),
    "frozen qd_detr": (detr.qd_detr, HeroConfig(stride=1), {"freeze_base": True}),
}


def train(rank, folder):
    """What one process does: two steps of each model on its own share of the data."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    ends = {}
    for name, (base, config, *options) in CASES.items():
        torch.manual_seed(0)
        model = DistributedDataParallel(wrap_model(base(), config=config, **dict(*options)).train())
        torch.manual_seed(10 + rank)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        for loss in STEPS.get(base, detr_steps)(model):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert hero_state_dict(model).keys() == model.module.hero_state_dict().keys()
        after = model.state_dict()
        moved = sum(not torch.equal(before[key], after[key]) for key in after if ".hero." in key)
        ends[name] = ({key: value.clone() for key, value in after.items()}, moved)
        still = all(torch.equal(before[key], after[key]) for key in after if ".base." in key)
        assert still is name.startswith("frozen"), name
        assert unwrap_model(model) is model.module.base
    torch.save(ends, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def emb_steps(model):
    for _ in range(2):
        batch = emb.batch()
        yield emb.loss(model.module, model(*batch), batch.v_mask)


def toy_steps(model):
    for _ in range(2):
        batch = inputs()
        yield total_loss(model.module, model(*batch), batch.video_mask)


def detr_steps(model):
    for _ in range(2):
        batch = detr.batch()
        yield total_loss(model.module, model(*batch), batch.src_vid_mask)


STEPS = {emb.emb: emb_steps, dict_base: toy_steps}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo")
def test_two_processes_stay_equal(tmp_path):
    multiprocessing.spawn(train, (str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one.keys() == other.keys() == CASES.keys()
    for name, (weights, moved) in one.items():
        assert moved > 0, name
        assert all(torch.equal(value, other[name][0][key]) for key, value in weights.items()), name
