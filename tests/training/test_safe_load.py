"""Upstream's checkpoints load; a file that would run code is refused by the name of what it would run."""

from __future__ import annotations

import os
import pickle
import subprocess
from argparse import Namespace
from functools import partial

import pytest
import torch
from packaging.version import Version

from hero_plugin.integrations.training import checkpoints as safe_load
from hero_plugin.integrations.training.checkpoints import CheckpointError, load_checkpoint_safely
from tests.core import detr
from tests.training.files import detr_checkpoint, saved

needs_a_list = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.4"), reason="torch before 2.4 allows no class"
)


class Calls:
    """What unpickling this does: one call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@needs_a_list
def test_a_namespace_loads_as_it_was(tmp_path):
    content = detr_checkpoint(detr.qd_detr())
    loaded = load_checkpoint_safely(saved(content, tmp_path / "model_best.ckpt"))
    assert loaded["opt"] == content["opt"] and type(loaded["opt"]) is Namespace
    assert all(torch.equal(value, content["model"][name]) for name, value in loaded["model"].items())
    assert loaded["epoch"] == 3


@needs_a_list
def test_an_easydict_loads_as_one_with_all_that_is_in_it(tmp_path, monkeypatch):
    easydict = pytest.importorskip("easydict")
    opt = easydict.EasyDict(model_name="qd_detr", clip_length=2, nested={"lr": 0.1, "deep": [{"x": 1}]}, none=None)
    path = saved(detr_checkpoint(detr.qd_detr(), opt), tmp_path / "best.ckpt")
    loaded = load_checkpoint_safely(path)
    assert type(loaded["opt"]) is easydict.EasyDict and loaded["opt"] == opt
    assert loaded["opt"].nested.deep[0].x == 1
    assert loaded["model"]._metadata  # the weights are what torch made of them
    monkeypatch.setattr(safe_load, "easydict_class", lambda: dict)  # not installed
    assert type(load_checkpoint_safely(path)["opt"]) is dict and load_checkpoint_safely(path)["opt"] == opt


@needs_a_list
def test_nncores_config_loads_as_the_plain_data_that_it_is(tmp_path):
    """FlashVTG saves one inside its options."""
    nncore = pytest.importorskip("nncore")
    settings = {"strides": (1, 2), "head": {"type": "ConvHead", "more": [{"x": 1}]}}
    content = {"model": {"w": torch.ones(1)}, "opt": Namespace(lr=0.1, cfg=nncore.Config(settings))}
    loaded = load_checkpoint_safely(saved(content, tmp_path / "best.ckpt"))["opt"].cfg
    assert loaded == settings and "nncore" not in type(loaded).__module__ + type(loaded["head"]).__module__


def hostile(made):
    """Objects whose unpickling would make the file ``made``, each with the name that the refusal has to say."""
    return {
        f"{os.system.__module__}.system": Calls(os.system, f"touch {made}"),
        "eval": Calls(eval, f"open({str(made)!r}, 'w')"),
        "Popen": Calls(subprocess.Popen, ["touch", str(made)]),
        "functools.partial": Calls(partial, open, str(made), "w"),
    }


@pytest.mark.parametrize("written", ["zip", "old", "plain pickle"])
@pytest.mark.parametrize("name", list(hostile("")))
@pytest.mark.parametrize("beside", ["alone", "in the settings"])
def test_a_hostile_file_runs_nothing_and_is_named(name, written, beside, tmp_path):
    if beside == "in the settings" and not safe_load.supported():
        pytest.skip("torch before 2.4 refuses the settings themselves")
    made, path = tmp_path / "made", tmp_path / "model.ckpt"
    evil = hostile(made)[name]
    content = evil if beside == "alone" else {"model": {"w": torch.ones(1)}, "opt": Namespace(lr=evil)}
    if written == "plain pickle":
        path.write_bytes(pickle.dumps(evil, 2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=written == "zip")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint_safely(path)
    assert not made.exists()
    assert (
        name in str(error.value) and "Nothing in it was executed" in str(error.value) and str(path) in str(error.value)
    )
    if name == f"{os.system.__module__}.system":  # the test can fail: this is what the file does to others
        with path.open("rb") as stream:
            pickle.load(stream) if written == "plain pickle" else torch.load(path, weights_only=False)
        assert made.exists()


@needs_a_list
def test_every_class_that_stands_in_the_way_is_named(tmp_path):
    content = {"a": Calls(os.getcwd), "b": Calls(partial, print), "opt": Namespace(x=1)}
    with pytest.raises(CheckpointError) as error:
        load_checkpoint_safely(saved(content, tmp_path / "x.pt"))
    assert "functools.partial" in str(error.value)
    if hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        assert f"{os.getcwd.__module__}.getcwd, " in str(error.value).replace("functools.partial, ", "")
    assert "argparse.Namespace, " not in str(error.value)


@needs_a_list
def test_what_others_allowed_stays_and_nothing_is_added(tmp_path):
    before = torch.serialization.get_safe_globals()
    load_checkpoint_safely(saved({"opt": Namespace(x=1)}, tmp_path / "x.pt"))
    with pytest.raises(CheckpointError):
        load_checkpoint_safely(saved(Calls(os.getcwd), tmp_path / "y.pt"))
    assert set(torch.serialization.get_safe_globals()) == set(before)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pt", weights_only=True)


def test_a_torch_that_can_allow_nothing_says_which_can(tmp_path, monkeypatch):
    path = saved({"opt": Namespace(x=1)}, tmp_path / "x.pt")
    for name in ("add_safe_globals", "safe_globals", "get_unsafe_globals_in_checkpoint"):
        monkeypatch.delattr(torch.serialization, name, raising=False)
    with pytest.raises(CheckpointError, match=r"holds argparse.Namespace, .*Upgrade to torch 2\.4 or later"):
        load_checkpoint_safely(path)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint_safely(tmp_path / "absent.pt")
    for text in ("hello", "", "<!DOCTYPE html>", "version https://git-lfs.github.com/spec/v1"):
        (tmp_path / "text.pt").write_text(text)
        with pytest.raises(CheckpointError, match=r"not a checkpoint that can be read.*copy or download it") as error:
            load_checkpoint_safely(tmp_path / "text.pt")
        assert "weights_only" not in str(error.value)  # torch advises to switch it off
    with pytest.raises(CheckpointError, match="is a folder; name the file of weights in it"):
        load_checkpoint_safely(tmp_path)


def test_a_program_is_not_run(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(CheckpointError, match="TorchScript, a program, which is not run"):
        load_checkpoint_safely(tmp_path / "script.pt")
