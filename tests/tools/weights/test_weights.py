"""``hero-plugin weights``: every layout is recognised, the plug-in comes out of it and goes on another copy."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from hero_plugin import HeroConfig, config_of, load_plugin, read_plugin, save_plugin, wrap_model
from hero_plugin.integrations import cli
from hero_plugin.integrations.tools.weights import ConfigHints, infer_config, open_choices
from hero_plugin.integrations.training import checkpoints as safe_load
from hero_plugin.integrations.training.checkpoints import read_contents
from tests.adapters import authors
from tests.core import detr, emb
from tests.core.bases import shake, tensors, tuple_base
from tests.training.files import detr_checkpoint, emb_checkpoint, saved

HEADS = ("--num-heads", "8", "--norm", "pre", "--positions", "True")


def run(capsys, *words):
    status = cli.main(["weights", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def facts(capsys, path):
    status, out, err = run(capsys, "show", path, "--json")
    assert status == 0, err
    return json.loads(out)


LAYOUTS = {
    "a DETR's": (detr.qd_detr, detr_checkpoint, "QDDETR", "checkpoint"),
    "EMB's": (emb.emb, emb_checkpoint, "EMB", "checkpoint"),
    "weights alone": (detr.tr_detr, lambda model: model.state_dict(), "TRDETR", "weights"),
    "inside DataParallel": (
        detr.moment_detr,
        lambda model: {"model": torch.nn.DataParallel(model).state_dict()},
        "MomentDETR",
        "checkpoint",
    ),
    "compiled": (detr.qd_detr, lambda model: torch.compile(model).state_dict(), "QDDETR", "weights"),
    "compiled inside DataParallel": (
        detr.moment_detr,
        lambda model: torch.nn.DataParallel(torch.compile(model)).state_dict(),
        "MomentDETR",
        "weights",
    ),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_show_recognises(name, wrapped, tmp_path, capsys):
    build, layout, class_name, kind = LAYOUTS[name]
    base = build()
    model = wrap_model(base, levels=2) if wrapped else base
    told = facts(capsys, saved(layout(model), tmp_path / "x.ckpt"))
    assert (told["base"], told["kind"], told["hidden_size"]) == (class_name, kind, 16)
    assert told["described"].endswith("a wrapped model" if wrapped else "the plain base")
    assert told["levels"] == (2 if wrapped else None)
    assert told["config"] == (model.config.to_dict() if wrapped else None)
    assert told["parameters"]["base"] == sum(value.numel() for value in base.state_dict().values())
    if wrapped:
        parts = {"hem", "sgvf", "cmtr", "aggregation"}
        assert {part: told["parameters"][part] for part in parts} == {
            part: sum(value.numel() for value in getattr(model.hero, part).state_dict().values()) for part in parts
        }
    status, out, _ = run(capsys, "show", tmp_path / "x.ckpt")
    assert status == 0 and class_name in out


def test_show_of_a_plugin_and_of_runs(runs, tmp_path, capsys):
    save_plugin(wrap_model(detr.qd_detr(), levels=2), tmp_path / "plugin.pt")
    told = facts(capsys, tmp_path / "plugin.pt")
    assert (told["kind"], told["base"], told["levels"]) == ("plug-in", "QDDETR", 2)
    assert told["config"]["levels"] == 2 and told["parameters"]["base"] == 0
    for path in (runs.hero.best, runs.hero.last):
        told = facts(capsys, path)
        assert (told["kind"], told["base"], told["config_from"]) == ("run", "EMB", "the checkpoint")
        assert told["version"] and told["levels"] == 4
    assert facts(capsys, runs.base.best)["described"] == "best.pt of a hero-plugin run, the plain base"


@pytest.mark.parametrize("name", ["moment_detr", "qd_detr", "tr_detr"])
def test_show_knows_the_authors_own_models(name, tmp_path, capsys):
    model, _ = authors.build(name)
    told = facts(capsys, saved(detr_checkpoint(model), tmp_path / "model_best.ckpt"))
    assert told["base"] == authors.CLASSES[name] and told["hidden_size"] == 256


@pytest.mark.parametrize("name", authors.LIGHTHOUSE)
def test_show_knows_lighthouses_models(name, tmp_path, capsys):
    model, _ = authors.build(name)
    path = saved({"model": model.state_dict()}, tmp_path / "best.ckpt")
    assert facts(capsys, path)["base"] == type(model).__name__


def test_show_knows_the_authors_emb(tmp_path, capsys):
    model = authors.load_emb().EMB(emb.config(), emb.vectors())
    told = facts(capsys, saved(emb_checkpoint(model), tmp_path / "model_best.pth.tar"))
    assert (told["base"], told["hidden_size"]) == ("EMB", 16)


@pytest.mark.parametrize("entry", ["model_state_dict", "module", "net", "model_ema", "params"])
def test_weights_under_other_names(entry, tmp_path):
    """Of the tutorials, DeepSpeed, and whoever saves one model under a name of their own."""
    model = wrap_model(detr.qd_detr())
    contents = read_contents(saved({entry: model.state_dict(), "optimizer": {"state": {}}}, tmp_path / "x.pt"))
    assert contents.entry == entry and contents.config == model.config
    assert contents.base.keys() == model.base.state_dict().keys()
    both = {"ours": model.state_dict(), "theirs": model.state_dict()}
    with pytest.raises(safe_load.CheckpointError, match="found ours, theirs"):
        read_contents(saved(both, tmp_path / "both.pt"))


def test_a_whole_model_in_safetensors(tmp_path, capsys):
    """As Hugging Face's trainer saves one; a plug-in's own file says more."""
    tensors = pytest.importorskip("safetensors.torch")
    model = shake(wrap_model(detr.qd_detr()), 0.1)
    tensors.save_file(dict(model.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    contents = read_contents(tmp_path / "model.safetensors")
    assert (contents.kind, contents.config) == ("weights", None)
    assert contents.hero.keys() == model.hero_state_dict().keys()
    save_plugin(model, tmp_path / "plugin.pt")
    words = ("merge", tmp_path / "plugin.pt", tmp_path / "model.safetensors")
    assert run(capsys, *words, tmp_path / "merged.pt")[0] == 0
    status, _, err = run(capsys, *words, tmp_path / "merged.safetensors")
    assert status == 2 and "give it a name in .pt" in err
    (tmp_path / "broken.safetensors").write_bytes(b"hello")
    status, _, err = run(capsys, "show", tmp_path / "broken.safetensors")
    assert status == 2 and "not a file of safetensors that can be read" in err


def test_what_holds_no_model(tmp_path, capsys):
    for content in ({"epoch": 3}, [1, 2], {"model": {}}, torch.ones(2)):
        status, _, err = run(capsys, "show", saved(content, tmp_path / "x.pt"))
        assert status == 2 and "no weights of a model found" in err
    status, _, err = run(capsys, "show", tmp_path / "absent.pt")
    assert status == 2 and "no such file" in err


@torch.no_grad()
def same_outputs(one, other, batch):
    pairs = zip(tensors(one.eval()(*batch)), tensors(other.eval()(*batch)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("output", ["plugin.pt", "plugin.safetensors"])
def test_out_of_one_checkpoint_and_onto_another(output, tmp_path, capsys):
    if output.endswith("safetensors"):
        pytest.importorskip("safetensors")
    model, other = shake(wrap_model(detr.qd_detr()), 0.1), shake(detr.qd_detr(), 0.2)
    layout = detr_checkpoint(model)
    layout["model"] = dict(layout["model"])  # a copy, which no longer says its config
    trained = saved(layout, tmp_path / "trained.ckpt")
    base = saved(detr_checkpoint(other), tmp_path / "base.ckpt")
    status, out, err = run(capsys, "extract", trained, tmp_path / output, *HEADS)
    assert status == 0 and "plug-in of QDDETR (" in out, err
    status, out, err = run(capsys, "merge", tmp_path / output, base, tmp_path / "merged.ckpt")
    assert status == 0 and "left out, because made in training the base alone: optimizer" in out, err
    merged = safe_load.load_checkpoint_safely(tmp_path / "merged.ckpt")
    assert set(merged) == {"model", "lr_scheduler", "epoch", "opt", "hero"}
    assert merged["opt"] == detr_checkpoint(other)["opt"]
    loaded = wrap_model(detr.qd_detr())
    loaded.load_state_dict(merged["model"])
    assert same_outputs(loaded, load_plugin(other, tmp_path / output), detr.batch())
    assert facts(capsys, tmp_path / "merged.ckpt")["config"] == HeroConfig().to_dict()
    # A checkpoint that says its config needs no flags, and refuses them.
    assert run(capsys, "extract", tmp_path / "merged.ckpt", tmp_path / "again.pt")[0] == 0
    status, _, err = run(capsys, "extract", tmp_path / "merged.ckpt", tmp_path / "more.pt", "--num-heads", "4")
    assert status == 2 and "known from the checkpoint; leave out --num-heads" in err


@pytest.mark.slow
def test_merging_on_a_wrapped_base_replaces_its_plugin_and_weights_alone_stay_so(tmp_path, capsys):
    model, other = shake(wrap_model(emb.emb()), 0.1), wrap_model(emb.emb(), levels=2)
    save_plugin(model, tmp_path / "plugin.pt")
    saved(other.state_dict(), tmp_path / "other.pt")
    assert run(capsys, "merge", tmp_path / "plugin.pt", tmp_path / "other.pt", tmp_path / "merged.pt")[0] == 0
    merged = torch.load(tmp_path / "merged.pt", weights_only=True)
    assert config_of(merged) == model.config
    assert merged.keys() == model.state_dict().keys()
    assert all(torch.equal(merged[name], value) for name, value in model.hero_state_dict().items())


class Around(torch.nn.Module):
    """A training framework's module, with a model and something of its own."""

    def __init__(self, model, name):
        super().__init__()
        setattr(self, name, model)
        self.head = torch.nn.Linear(2, 2)


INSIDE = {
    "Lightning's": lambda model: {"state_dict": Around(model, "model").state_dict(), "epoch": 3},
    "another name": lambda model: Around(model, "net").state_dict(),
    "averaged": lambda model: torch.optim.swa_utils.AveragedModel(model).state_dict(),
    "averaged in a checkpoint": lambda model: {"model": torch.optim.swa_utils.AveragedModel(model).state_dict()},
    "compiled in parallel inside": lambda model: Around(
        torch.nn.DataParallel(torch.compile(model)), "student"
    ).state_dict(),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_model_inside_another_is_found(name, tmp_path, capsys):
    model = shake(wrap_model(emb.emb(), levels=2), 0.1)
    path = saved(INSIDE[name](model), tmp_path / "whole.ckpt")
    assert facts(capsys, path)["base"] == "EMB"
    status, _, err = run(capsys, "extract", path, tmp_path / "plugin.pt")
    assert status == 0, err
    assert same_outputs(load_plugin(model.base, tmp_path / "plugin.pt"), model, emb.batch())
    other = saved(INSIDE[name](shake(emb.emb(), 0.2)), tmp_path / "base.ckpt")
    status, _, err = run(capsys, "merge", tmp_path / "plugin.pt", other, tmp_path / "merged.pt")
    assert status == 0, err
    merged = read_contents(tmp_path / "merged.pt")
    assert merged.base.keys() == model.base.state_dict().keys() and merged.hero.keys() == model.hero_state_dict().keys()


def test_two_wrapped_models_in_one_file_are_named(tmp_path, capsys):
    pair = torch.nn.ModuleDict({"student": wrap_model(emb.emb()), "teacher": wrap_model(emb.emb())})
    status, _, err = run(capsys, "extract", saved(pair.state_dict(), tmp_path / "two.pt"), tmp_path / "plugin.pt")
    assert status == 2 and "several wrapped models, under 'student.', 'teacher.'" in err


def test_no_empty_plugin_is_written(tmp_path, capsys):
    model = wrap_model(emb.emb())
    record = model.as_plugin().record()
    path = saved({"model": model.base.state_dict(), "hero": record}, tmp_path / "odd.pt")
    status, _, err = run(capsys, "extract", path, tmp_path / "plugin.pt")
    assert status == 2 and "no weights of a plug-in were found" in err and not (tmp_path / "plugin.pt").exists()


def test_a_checkpoint_of_something_else_takes_no_plugin(tmp_path, capsys):
    save_plugin(wrap_model(emb.emb()), tmp_path / "plugin.pt")
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2))
    path = saved(other.state_dict(), tmp_path / "resnet.pt")
    status, _, err = run(capsys, "merge", tmp_path / "plugin.pt", path, tmp_path / "merged.pt")
    assert status == 2 and "only 0 of the" in err and not (tmp_path / "merged.pt").exists()


def test_a_runs_plugin_goes_on_another_run(runs, tmp_path, capsys):
    status, _, err = run(capsys, "extract", runs.hero.best, tmp_path / "plugin.pt")
    assert status == 0, err
    assert read_plugin(tmp_path / "plugin.pt").config == HeroConfig()
    status, out, _ = run(capsys, "merge", tmp_path / "plugin.pt", runs.base.best, tmp_path / "merged.pt")
    assert status == 0 and "left out, because measured of the model before: metrics" in out
    merged, base = (safe_load.load_checkpoint(path) for path in (tmp_path / "merged.pt", runs.base.best))
    assert set(merged) == {*base, "hero"} - {"metrics"} and merged["epoch"] == base["epoch"]
    status, _, err = run(capsys, "extract", runs.base.best, tmp_path / "none.pt")
    assert status == 2 and "there is no plug-in in it to take out" in err
    status, _, err = run(capsys, "merge", runs.hero.best, runs.base.best, tmp_path / "more.pt")
    assert status == 2 and "`hero-plugin weights extract` makes one of it" in err
    status, _, err = run(capsys, "merge", tmp_path / "plugin.pt", tmp_path / "plugin.pt", tmp_path / "more.pt")
    assert status == 2 and "without the weights of a base" in err
    status, _, err = run(capsys, "extract", runs.hero.best, tmp_path / "plugin.pt")
    assert status == 2 and "--overwrite" in err


def test_merging_on_another_base_says_what_differs(tmp_path, capsys):
    save_plugin(wrap_model(detr.moment_detr()), tmp_path / "plugin.pt")
    narrow = saved(detr_checkpoint(detr.moment_detr(hidden_dim=32)), tmp_path / "narrow.ckpt")
    other = saved(detr_checkpoint(detr.qd_detr()), tmp_path / "other.ckpt")
    status, _, err = run(capsys, "merge", tmp_path / "plugin.pt", narrow, tmp_path / "merged.ckpt")
    assert status == 2 and "hidden size is 32 here, 16 in the checkpoint" in err
    status, _, err = run(capsys, "merge", tmp_path / "plugin.pt", other, tmp_path / "merged.ckpt")
    assert status == 2 and "is QDDETR here, MomentDETR in the checkpoint" in err and "--no-strict" in err
    assert not (tmp_path / "merged.ckpt").exists()
    status, out, _ = run(capsys, "merge", tmp_path / "plugin.pt", other, tmp_path / "merged.ckpt", "--no-strict")
    assert status == 0 and "note: " in out


def test_settings_in_an_easydict_are_written_again_or_refused(tmp_path, capsys, monkeypatch):
    easydict = pytest.importorskip("easydict")
    save_plugin(wrap_model(detr.qd_detr()), tmp_path / "plugin.pt")
    opt = easydict.EasyDict(clip_length=2)
    base = saved(detr_checkpoint(detr.qd_detr(), opt), tmp_path / "base.ckpt")
    assert run(capsys, "merge", tmp_path / "plugin.pt", base, tmp_path / "merged.ckpt")[0] == 0
    assert safe_load.load_checkpoint_safely(tmp_path / "merged.ckpt")["opt"].clip_length == 2
    monkeypatch.setattr(safe_load, "easydict_class", lambda: dict)
    status, _, err = run(capsys, "merge", tmp_path / "plugin.pt", base, tmp_path / "more.ckpt")
    assert status == 2 and "pip install easydict" in err


CONFIGS = [
    HeroConfig(),
    HeroConfig(levels=2, stride=3, feedforward=40, aggregation_dim=24),
    HeroConfig(levels=8, stride=1, num_heads=4, positions=False),
    HeroConfig.paper(),
    HeroConfig.paper(projections=True, relevance="pair"),
    HeroConfig(sgvf=False, cmtr=False),
    HeroConfig(levels=1),
    HeroConfig(levels=1, cmtr=False, gate="sigmoid"),
    HeroConfig(levels=1, sgvf=False, relevance="pair"),
    HeroConfig(level_weights="query"),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_say_their_config_and_ask_for_the_rest(config):
    hero = wrap_model(tuple_base(), config=config).hero_state_dict()
    hints = ConfigHints(config.num_heads, config.norm, config.positions, config.gate if config.sgvf else "none")
    needed = replace(ConfigHints(), **{name: getattr(hints, name) for name in open_choices(hero)})
    assert infer_config(hero, needed, "x").architecture(16) == config.architecture(16)


def test_what_is_not_told_is_asked_for_and_contradictions_are_errors(tmp_path, capsys):
    path = saved(dict(wrap_model(emb.emb(), config=HeroConfig.paper()).state_dict()), tmp_path / "x.pt")
    status, _, err = run(capsys, "extract", path, tmp_path / "p.pt", "--num-heads", "8")
    assert status == 2 and "Give --norm --positions --gate" in err and "--norm pre --positions True" in err
    path = saved(dict(wrap_model(emb.emb()).state_dict()), tmp_path / "y.pt")
    status, _, err = run(capsys, "extract", path, tmp_path / "p.pt", *HEADS, "--gate", "sigmoid")
    assert status == 2 and "contradicts the weights, which have a residual gate's" in err
    (tmp_path / "config.json").write_text(json.dumps({"levels": 2}))
    status, _, err = run(capsys, "extract", path, tmp_path / "p.pt", "--config", tmp_path / "config.json")
    assert status == 2 and "levels is 2 in it, 4 in the weights" in err
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 2}))
    assert run(capsys, "extract", path, tmp_path / "p.pt", "--config", tmp_path / "config.json")[0] == 0
    assert read_plugin(tmp_path / "p.pt").config.num_heads == 2


def test_the_entry_that_a_script_may_write_beside_the_weights(tmp_path):
    model = wrap_model(detr.qd_detr(), levels=2, num_heads=4)
    content = {**detr_checkpoint(model), "hero": model.as_plugin().record()}
    contents = read_contents(saved(content, tmp_path / "x.ckpt"))
    assert contents.config == model.config and contents.fingerprint == model.as_plugin().base


def test_a_hostile_checkpoint_is_refused_by_the_command(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    status, _, err = run(capsys, "show", saved({"model": Evil()}, tmp_path / "x.pt"))
    assert status == 2 and "io.open" in err and not (tmp_path / "made").exists()
