"""Each shim repairs its fault, and only that."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from hero_plugin.adapters.detr.criterion import sigmoid_focal_loss as of_tr_detr
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.launch.cli import REPOSITORIES
from hero_plugin.integrations.tools.launch.run import patched
from hero_plugin.integrations.tools.launch.shims import (
    CUDA_ON_CPU,
    FLOAT_LENGTHS,
    FOCAL_LOSS,
    FORK,
    PUNKT,
    TORCH_LOAD,
    TORCHTEXT,
    TRANSFORMERS_ADAMW,
    configured_device,
)
from tests.resources import REPOSITORY

safely_loading = pytest.mark.skipif(not TORCH_LOAD.needed(), reason="torch before 2.4 cannot load settings safely")


def test_every_shim_is_documented():
    shims = {shim.name: shim for repository in REPOSITORIES for shim in repository.repairs}
    page = (REPOSITORY / "docs" / "guide" / "somebodys_repo.md").read_text()
    assert [name for name in shims if f"`{name}`" not in page] == []


def test_transformers_that_still_have_adamw_need_no_shim(monkeypatch):
    old = ModuleType("transformers")
    old.AdamW = object
    monkeypatch.setitem(sys.modules, "transformers", old)
    old.__spec__ = argparse.Namespace()
    assert not TRANSFORMERS_ADAMW.needed()
    del old.AdamW
    assert TRANSFORMERS_ADAMW.needed()


def test_adamw_steps_as_torchs_does_and_the_rate_falls_to_0():
    module = TRANSFORMERS_ADAMW.stand_ins()["transformers"]
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    ours = module.AdamW([{"params": [weights[0]], "weight_decay": 0.01}], lr=0.1)
    torchs = torch.optim.AdamW([weights[1]], lr=0.1, eps=1e-6, weight_decay=0.01)
    schedule = module.get_linear_schedule_with_warmup(ours, 0.0, 4)
    rates = []
    for _ in range(4):
        rates.append(ours.param_groups[0]["lr"])
        torchs.param_groups[0]["lr"] = rates[-1]
        for optimizer, weight in ((ours, weights[0]), (torchs, weights[1])):
            weight.grad = torch.tensor([1.0, -2.0, 0.0])
            optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert ours.param_groups[0]["lr"] == 0
    assert torch.equal(*weights)


@pytest.fixture
def predictor(monkeypatch):
    """A module under the name of EMB's."""
    for name in ("model", "model.predictor"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["model.predictor"].pack_padded_sequence = pack_padded_sequence
    return sys.modules["model.predictor"]


def test_float_lengths(predictor):
    words = torch.randn(2, 3, 4)
    expected = pack_padded_sequence(words, [3, 2], batch_first=True)
    with patched(FLOAT_LENGTHS.patches):
        packed = predictor.pack_padded_sequence(words, [torch.tensor(3.0), torch.tensor(2.0)], batch_first=True)
    assert torch.equal(packed.data, expected.data) and torch.equal(packed.batch_sizes, expected.batch_sizes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_on_cpu():
    tensor = torch.ones(2)
    with patched(CUDA_ON_CPU.patches):
        assert tensor.cuda() is tensor
    with pytest.raises((AssertionError, RuntimeError)):
        tensor.cuda()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
@pytest.mark.parametrize("device", ["cuda", torch.device("cuda")])
def test_configured_device(monkeypatch, device):
    module = ModuleType("training.config")

    class BaseOptions:
        def __init__(self):
            self.opt = argparse.Namespace()

        def parse(self, more=""):
            self.opt.device = device
            return f"parsed{more}"

    module.BaseOptions = BaseOptions
    monkeypatch.setitem(sys.modules, "training.config", module)
    with patched(configured_device("config", "training.config").patches):
        options = module.BaseOptions()
        assert (
            options.parse() == "parsed"
            and options.parse(" more") == "parsed more"
            and options.opt.device == type(device)("cpu")
        )


def test_focal_loss_is_that_of_the_reference_criterion():
    torch.manual_seed(0)
    logits, foreground = torch.randn(2, 5, 2), torch.rand(2, 5) > 0.5
    loss = FOCAL_LOSS.stand_ins()["torchvision.ops.focal_loss"].sigmoid_focal_loss
    targets = torch.stack([foreground, ~foreground], -1).float()
    torch.testing.assert_close(loss(logits, targets, alpha=0.25, gamma=2.0), of_tr_detr(logits, targets))
    plain = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(loss(logits, targets, alpha=-1, gamma=0, reduction="mean"), plain)


def test_torchtexts_words_and_vectors(tmp_path, monkeypatch):
    """As FlashVTG uses them: an unknown word's vector, zeros, comes after the last."""
    monkeypatch.chdir(tmp_path)
    glove = TORCHTEXT.stand_ins()["torchtext"].vocab.pretrained_aliases["glove.6B.300d"]
    with pytest.raises(UserError, match=r"there is no .*glove\.6B\.300d\.txt: unpack"):
        glove()
    (tmp_path / ".vector_cache").mkdir()
    (tmp_path / ".vector_cache/glove.6B.300d.txt").write_text("a 1 2\nbox 3 -4\n")
    table = glove()
    table.itos.extend(["<unk>"])
    table.stoi["<unk>"] = table.vectors.shape[0]
    table.vectors = torch.cat((table.vectors, torch.zeros(1, table.dim)))
    assert table.vectors[table.stoi["box"]].tolist() == [3, -4] and table.itos[1] == "box"
    assert not table.vectors[table.stoi.get("door", 2)].any()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_workers_are_forked():
    before = multiprocessing.get_start_method(allow_none=True)
    try:
        multiprocessing.set_start_method("spawn", force=True)
        with patched(FORK.patches):
            assert multiprocessing.get_start_method() == "fork"
        assert multiprocessing.get_start_method() == "spawn"
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_punkt_splits_words_as_nltk_does(monkeypatch):
    tokenize = pytest.importorskip("nltk.tokenize")
    module = ModuleType("util.data_gen")
    module.word_tokenize = tokenize.word_tokenize
    monkeypatch.setitem(sys.modules, "util.data_gen", module)
    with patched(PUNKT.patches):
        words = module.word_tokenize("a person's holding the box.", language="english")
    assert words == ["a", "person", "'s", "holding", "the", "box", "."]


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@safely_loading
@pytest.mark.parametrize("weights_only", [False, None, True])
def test_settings_load_and_nothing_else_does(tmp_path, weights_only):
    saved = {"opt": argparse.Namespace(device=torch.device("cpu"), lr=0.1, dirs=["a"]), "model": {"w": torch.ones(2)}}
    torch.save(saved, tmp_path / "good.ckpt")
    torch.save({**saved, "more": Hostile(tmp_path / "ran")}, tmp_path / "hostile.ckpt")
    asked = {} if weights_only is None else {"weights_only": weights_only}
    with patched(TORCH_LOAD.patches):
        loaded = torch.load(tmp_path / "good.ckpt", map_location="cpu", **asked)
        with pytest.raises(UserError, match=r"holds \w+.mkdir, and loading it could run any code"):
            torch.load(tmp_path / "hostile.ckpt", **asked)
        with pytest.raises(UserError):
            torch.load(tmp_path / "hostile.ckpt", pickle_module=pickle, **asked)
    assert loaded["opt"] == saved["opt"] and torch.equal(loaded["model"]["w"], torch.ones(2))
    assert not (tmp_path / "ran").exists()


@safely_loading
def test_lighthouses_settings_load(tmp_path):
    easydict = pytest.importorskip("easydict")
    saved = {"opt": easydict.EasyDict({"lr": 0.1, "feature": {"dim": 3}}), "model": {"w": torch.ones(2)}}
    torch.save(saved, tmp_path / "good.ckpt")
    with patched(TORCH_LOAD.patches):
        loaded = torch.load(tmp_path / "good.ckpt", weights_only=False)
    assert loaded["opt"].lr == 0.1 and loaded["opt"].feature.dim == 3
