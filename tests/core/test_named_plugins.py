"""Several plug-ins on one base, of which one answers and trains; and the base alone, for a while."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.parallel import scatter_gather

from hero_plugin import HeroConfig, hero_state_dict, load_plugin, save_plugin, wrap_criterion, wrap_model
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, labels, shake, tensors, total_loss, tuple_base


def answer(model, batch):
    with torch.no_grad():
        return [tensor.clone() for tensor in tensors(model.eval()(*batch))]


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def two(scale=0.3):
    """A model with the plug-ins ``default``, which is active, and ``second``, which both say something."""
    torch.manual_seed(0)
    model = shake(wrap_model(dict_base(), levels=2, stride=1), scale)
    model.add_plugin("second", levels=4, stride=1, relevance="pair")
    model.set_active("second")
    shake(model.hero, 2 * scale)
    model.set_active("default")
    return model


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("build", "make"), [(tuple_base, inputs), (dict_base, inputs), (emb.emb, emb.batch), (detr.tr_detr, detr.batch)]
)
def test_disabled_it_is_the_base(build, make, training):
    model, batch = shake(wrap_model(build()), 0.1).train(training), make()
    with torch.no_grad():
        expected, with_hero = tensors(model.base(*batch)), tensors(model(*batch))
        relevance = model.relevance
        with model.disable_hero() as alone:
            assert alone is model and not model.hero_active
            outputs = model(*batch)
            assert "hero" not in outputs and same(tensors(outputs), expected)
            with model.disable_hero():
                assert same(tensors(model(*batch)), expected)
            assert same(tensors(model(*batch)), expected) and model.weighted_hero_loss(torch.zeros(3, 7)) == 0.0
        assert model.hero_active and model.relevance is relevance
        assert not same(with_hero, expected)
        if not training:
            assert same(tensors(model(*batch)), with_hero)


def test_disabled_ends_with_an_error_too_and_saves_the_plugin_all_the_same():
    model = wrap_model(tuple_base(), levels=2)
    expected = list(model.state_dict())
    with pytest.raises(RuntimeError, match="on purpose"), model.disable_hero():
        assert list(model.state_dict()) == expected and model.config.levels == 2
        raise RuntimeError("on purpose")
    assert model.hero_active
    assert not wrap_model(tuple_base(), config=HeroConfig.off()).hero_active


def test_disabled_the_losses_are_the_bases():
    model, batch = wrap_model(emb.emb()).train(), emb.batch()
    with model.disable_hero():
        outputs = model(*batch)
        loss = emb.loss(model, outputs, batch.v_mask)
    torch.testing.assert_close(loss, emb.loss(model.base, model.base(*batch), batch.v_mask))

    from hero_plugin.adapters.qd_detr import QDDETRConfig, build_qd_detr

    sizes = QDDETRConfig(text_dim=5, video_dim=6, hidden_dim=16, nheads=2)
    base, criterion = build_qd_detr(sizes)
    model = wrap_model(base).train()
    targets = {"span_labels": [{"spans": torch.tensor([[0.5, 0.2]])}] * 3}
    criterion = wrap_criterion(criterion, model.config)
    with model.disable_hero():
        assert "loss_relevance" not in criterion(model(*detr.batch()), targets)
    assert "loss_relevance" in criterion(model(*detr.batch()), targets)


def test_one_plugin_has_the_keys_it_always_had():
    model = wrap_model(dict_base(), levels=2)
    before = list(model.state_dict())
    assert {key.split(".")[0] for key in before} == {"hero", "base"}
    assert model.plugins == {"default": model.config} and model.active_plugin == "default"
    model.add_plugin("second", levels=4)
    assert list(model.state_dict()) == before and list(model.plugins) == ["default", "second"]
    assert len(list(model.parameters())) == len(list(wrap_model(dict_base(), levels=2).parameters()))


def test_each_answers_as_it_did_alone():
    model, batch = two(), inputs()
    first, base = answer(model, batch), answer(model.base, batch)
    model.set_active("second")
    second = answer(model, batch)
    assert model.config.levels == 4 and model.plugins["default"].levels == 2
    assert not same(first, second) and same(answer(model.base, batch), base)
    model.set_active("default")
    assert model.active_plugin == "default" and same(answer(model, batch), first)
    assert list(model.plugins) == ["default", "second"]
    assert "plug-ins: default, second; active: default" in repr(model)


def test_the_active_one_trains_and_the_other_stays():
    model, batch = two(), inputs()
    kept = copy.deepcopy(model._plugins["second"][0].state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    total_loss(model, model.train()(*batch), batch.video_mask).backward()
    optimizer.step()
    model.set_active("second")
    assert model.hero.training and model.relevance is None
    assert all(parameter.grad is None for parameter in model.hero.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in model.hero.state_dict().items())
    total_loss(model, model(*batch), batch.video_mask).backward()
    assert all(parameter.grad is not None for parameter in model.hero.parameters())
    assert all(parameter.grad is None for parameter in model._plugins["default"][0].parameters())


def test_the_kept_one_moves_along_and_is_copied():
    model, batch = two().double(), inputs(dtype=torch.float64)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.set_active("second")
        assert all(parameter.dtype == torch.float64 for parameter in twin.parameters())
        assert model.active_plugin == "default" and list(twin.plugins) == ["default", "second"]
        expected = answer(twin, batch)
        twin.set_active("default")
        shake(twin.hero)
        twin.set_active("second")
        assert same(answer(twin, batch), expected) and same(answer(model, batch), answer(copy.deepcopy(model), batch))


def test_wrong_names_are_told_with_those_that_there_are():
    model = two()
    with pytest.raises(ValueError, match="no plug-in is called 'secund'; there are 'default', 'second'; did you mean"):
        model.set_active("secund")
    with pytest.raises(ValueError, match="there is a plug-in 'second' already"):
        model.add_plugin("second")
    with pytest.raises(ValueError, match="must be a text, got ''"):
        model.add_plugin("")
    with pytest.raises(TypeError, match="did you mean 'levels'"):
        model.add_plugin("third", level=2)
    with pytest.raises(ValueError, match="'default' is active: set_active another one first"):
        model.remove_plugin("default")
    model.remove_plugin("second")
    assert list(model.plugins) == ["default"]


def test_files_of_several(tmp_path):
    model, batch = two(), inputs()
    answers = {}
    for name in model.plugins:
        model.set_active(name)
        answers[name] = answer(model, batch)
        save_plugin(model, tmp_path / f"{name}.pt")
    base = copy.deepcopy(model.base)
    other = load_plugin(base, tmp_path / "default.pt", name="first")
    assert list(other.plugins) == ["first"]
    assert load_plugin(other, tmp_path / "second.pt", name="second") is other
    assert other.active_plugin == "first" and same(answer(other, batch), answers["default"])
    other.set_active("second")
    assert other.plugins == {"first": model.plugins["default"], "second": model.plugins["second"]}
    assert same(answer(other, batch), answers["second"])
    load_plugin(other, tmp_path / "second.pt", name="second")  # into the active one
    with pytest.raises(ValueError, match="there is a plug-in 'first' already"):
        load_plugin(other, tmp_path / "default.pt", name="first")
    assert other.active_plugin == "second"
    broken = torch.load(tmp_path / "default.pt")
    broken["hero"].popitem()
    torch.save(broken, tmp_path / "broken.pt")
    with pytest.raises(RuntimeError, match="Missing key"):
        load_plugin(other, tmp_path / "broken.pt", name="third")
    assert other.active_plugin == "second" and list(other.plugins) == ["first", "second"]


@pytest.mark.parametrize("broken", [False, True])
def test_a_file_beside_the_active_one_leaves_that_as_it_is(broken, tmp_path):
    """Between a forward and its losses, and with the gradients of batches before."""
    model, batch = two().train(), inputs()
    model.keep_level(1)
    plugin = model.as_plugin().to_dict()
    if broken:
        plugin["hero"].popitem()
    torch.save(plugin, tmp_path / "plugin.pt")
    target = labels(batch.video_mask)
    total_loss(model, model(*batch), batch.video_mask).backward()
    model(*batch)
    last, gradients = model.last_forward, [each.grad for each in model.parameters()]
    with pytest.raises(RuntimeError, match="Missing key") if broken else nullcontext():
        load_plugin(model, tmp_path / "plugin.pt", name="new")
    assert model.last_forward is last and ("new" in model.plugins) is not broken
    assert all(one.grad is other for one, other in zip(model.parameters(), gradients, strict=True))
    assert any(each is not None for each in gradients) and model.compute_hero_losses(target)
    if not broken:
        assert model.plugins["new"] == model.config
        before = hero_state_dict(model)
        model.set_active("new")
        assert all(torch.equal(value, before[name]) for name, value in hero_state_dict(model).items())


def test_criteria_and_losses_follow_the_active_one():
    model, batch = two(), inputs()
    model.add_plugin("quiet", levels=2, stride=1, cmtr=False, relevance_weight=0.0, consistency_weight=0.0)
    model.set_active("quiet")
    model.train()(*batch)
    assert float(torch.as_tensor(model.weighted_hero_loss(labels(batch.video_mask))).detach()) == 0.0
    settings = model(*batch)["hero"]["settings"]
    model.set_active("default")
    assert model(*batch)["hero"]["settings"] != settings


def test_a_criterion_without_a_config_takes_the_settings_of_whichever_is_active():
    model, batch = wrap_model(detr.qd_detr(), levels=2).train(), detr.batch()
    model.add_plugin("loud", levels=2, relevance_weight=1.0, consistency_weight=0.5, consistency="bernoulli")
    inner = nn.Module()
    inner.weight_dict, inner.forward = {}, lambda outputs, targets: {}
    criterion = wrap_criterion(inner)
    targets = {"span_labels": [{"spans": torch.tensor([[0.5, 0.2]])}] * 3}
    for name, weights, kind in (
        ("default", [0.1, 0.1], "clips"),
        ("loud", [1.0, 0.5], "bernoulli"),
        ("default", [0.1, 0.1], "clips"),
    ):
        model.set_active(name)
        criterion(model(*batch), targets)
        assert list(criterion.weight_dict.values()) == weights and criterion.config.consistency == kind


def test_a_criterion_takes_the_settings_from_what_parallel_replicas_left(monkeypatch):
    """``DataParallel`` gathers keys and tensors of the replicas' outputs; its own gather runs on GPUs alone."""
    monkeypatch.setattr(scatter_gather.Gather, "apply", lambda device, dim, *tensors: torch.cat(tensors, dim))
    model, batch = wrap_model(dict_base(), levels=2).train(), inputs()
    model.add_plugin("loud", levels=2, relevance_weight=7.0)
    inner = nn.Module()
    inner.weight_dict, inner.forward = {}, lambda outputs, targets: {}
    criterion = wrap_criterion(inner)
    targets = {"span_labels": [{"spans": torch.tensor([[0.5, 0.2]])}] * 6}
    for name, weight in (("default", 0.1), ("loud", 7.0)):
        model.set_active(name)
        losses = criterion(scatter_gather.gather([model(*batch), model(*batch)], 0), targets)
        assert criterion.weight_dict["loss_relevance"] == weight and losses["loss_relevance"].isfinite()


@pytest.mark.parametrize("frozen", [False, True])
def test_trainable_parameters_are_printed(frozen, capsys):
    model = wrap_model(dict_base(), levels=2, freeze_base=frozen)
    model.print_trainable_parameters()
    hero, base = (sum(p.numel() for p in part.parameters()) for part in (model.hero, model.base))
    learns, share = (0, hero / (hero + base)) if frozen else (base, 1.0)
    assert capsys.readouterr().out.splitlines() == [
        f"HERO: {hero:,} of {hero:,} parameters learn (100.00 %)",
        f"base: {learns:,} of {base:,} parameters learn ({0 if frozen else 100:.2f} %)",
        f"in all: {hero + learns:,} of {hero + base:,} parameters learn ({100 * share:.2f} %)",
    ]
    two().print_trainable_parameters()
    assert capsys.readouterr().out.startswith("HERO 'default': ")


def test_its_print_names_what_measured_no_worse_for_less():
    said = "on this base sgvf=False, cmtr=False measured no worse, and costs less"
    assert said in repr(wrap_model(detr.qd_detr())) and said in repr(wrap_model(detr.qd_detr(), sgvf=False))
    assert said not in repr(wrap_model(detr.qd_detr(), sgvf=False, cmtr=False))
    assert said not in repr(wrap_model(emb.emb())) and said not in repr(wrap_model(dict_base()))
