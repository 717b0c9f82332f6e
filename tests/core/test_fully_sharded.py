"""FSDP2's ``fully_shard`` of a wrapped model, in two processes: the gradients and outputs of one that is whole."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from hero_plugin import wrap_model
from tests.core import detr, emb
from tests.core.bases import shake, total_loss

CASES = {
    "emb": (emb.emb, ()),
    "moment_detr": (detr.moment_detr, ("",)),
    "qd_detr": (detr.qd_detr, ("transformer.encoder", "transformer.t2v_encoder")),
    "tr_detr": (detr.tr_detr, ("transformer.encoder", "transformer.decoder")),
}
"""A base, and those of its encoders and decoders whose layers are sharded one by one; "" is the base as a unit."""


def batch_and_loss(name, rank):
    """A batch of each process, and what a training loop makes of the outputs."""
    torch.manual_seed(10 + rank)
    if name == "emb":
        batch = emb.batch()
        return batch, lambda model, outputs: emb.loss(model, outputs, batch.v_mask)
    batch = detr.batch()
    return batch, lambda model, outputs: total_loss(model, outputs, batch.src_vid_mask)


def train(rank, folder):
    """What one process does: a step of the whole model and of the sharded one, on its own share of the data."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for name, (build, parts) in CASES.items():
        torch.manual_seed(0)
        whole = shake(wrap_model(build(), levels=2, stride=1, dropout=0.0), 0.05).train()
        model = copy.deepcopy(whole)
        for part in parts:
            module = model.base.get_submodule(part)
            for layer in getattr(module, "layers", [module]):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        batch, loss = batch_and_loss(name, rank)
        for one in (whole, model):
            torch.manual_seed(5)  # the masked words
            loss(one, one(*batch)).backward()
        for (key, expected), parameter in zip(whole.named_parameters(), model.parameters(), strict=True):
            if expected.grad is not None:
                dist.all_reduce(expected.grad)
                found = parameter.grad.full_tensor()
                torch.testing.assert_close(found, expected.grad / 2, rtol=1e-4, atol=1e-5, msg=f"{name}: {key}")
        torch.optim.SGD(model.parameters(), lr=0.05).step()
        model.eval()
        with torch.no_grad():
            outputs = model(*batch)
            fresh = wrap_model(build(), levels=2, stride=1).eval()
            fresh.load_state_dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)))
            torch.testing.assert_close(fresh(*batch), outputs)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo")
def test_a_sharded_model_is_the_whole_one(tmp_path):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("fully_shard came with torch 2.6")
    multiprocessing.spawn(train, (str(tmp_path),), nprocs=2)
