"""One level, or some, answering after training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from hero_plugin import HeroConfig, choose_level, export_base, load_plugin, save_plugin, wrap_model
from tests.core import detr
from tests.core.bases import dict_base, difference, inputs, tensors
from tests.core.cases import CASES

SETTINGS = {
    "all of HERO": HeroConfig(),
    "HEM alone": HeroConfig(sgvf=False, cmtr=False),
    "the paper": HeroConfig.paper(),
    "projections, a pair head": HeroConfig(projections=True, relevance="pair"),
}


def trained(base: nn.Module, config: HeroConfig = SETTINGS["all of HERO"]):
    """A wrapped model whose levels differ, in eval mode."""
    model = wrap_model(base, config=config)
    with torch.no_grad():
        for parameter in model.hero.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def alone(model, batch, level):
    """What the base makes of one level's words and clips, and no level else."""
    grounder = model.grounder
    pair = grounder.embed(*batch)
    words = model.hero.words(pair.query, pair.query_mask)
    clips = model.hero.clips(pair.video, words, pair.query_mask)
    one = slice(level, level + 1)
    outputs = grounder.ground(pair.at_levels(clips[one], words[one])).outputs
    return grounder.complete(outputs, pair) if hasattr(grounder, "complete") else outputs


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", CASES)
def test_one_level_is_the_base_on_its_words_and_clips(name, setting):
    build, make = CASES[name]
    model, batch = trained(build(), SETTINGS[setting]), make()
    with torch.no_grad():
        for level in range(4):
            expected = alone(model, batch, level)
            assert difference(model.keep_level(level)(*batch), expected) <= 2e-6
            assert model.relevance.shape == batch[2 if name == "emb" else 0].shape[:1] + model.relevance.shape[1:]
            exported = export_base(model)
            assert difference(exported(*batch), model(*batch)) <= 1e-6


@pytest.mark.parametrize("name", CASES)
def test_the_base_runs_once_for_one_level_and_no_layer_beyond_it(name):
    build, make = CASES[name]
    model, batch = trained(build()), make()
    sizes, layers = [], []
    grounder = model.grounder
    ground = grounder.ground
    grounder.ground = lambda pair: sizes.append(len(pair.video)) or ground(pair)
    for layer in model.hero.hem.layers:
        layer.register_forward_hook(lambda *_: layers.append(1))
    model.keep_level(1)(*batch)
    assert (sizes, len(layers)) == ([len(batch[0])], 2)
    model.keep_level()(*batch)
    assert (sizes[1:], len(layers)) == ([4 * len(batch[0])], 2 + 6)


def test_some_levels_share_their_weights_anew():
    model, batch = trained(dict_base()), inputs()
    with torch.no_grad():
        weights = model.level_weights()
        saliency = [alone(model, batch, level)["saliency_scores"] for level in range(4)]
        outputs = model.keep_level(3, 1)(*batch)
    expected = (weights[1] * saliency[1] + weights[3] * saliency[3]) / (weights[1] + weights[3])
    torch.testing.assert_close(outputs["saliency_scores"], expected)
    torch.testing.assert_close(model.relevance, expected)
    shares = model.level_weights()
    torch.testing.assert_close(shares[[1, 3]], weights[[1, 3]] / weights[[1, 3]].sum())
    assert shares[[0, 2]].tolist() == [0, 0]


def test_training_keeps_all_levels_and_one_call_undoes_the_choice():
    model, batch = trained(dict_base()), inputs()
    everything = model(*batch)
    model.keep_level(2)
    assert difference(model(*batch), everything) > 1e-4
    torch.testing.assert_close(model.train().level_weights(), model.eval().keep_level().level_weights())
    assert difference(model(*batch), everything) == 0
    assert difference(model.keep_level(0, 1, 2, 3)(*batch), everything) <= 1e-6
    assert model.keep_level([1, 2]).config.inference == (1, 2) and model.keep_level((1,)).config.inference == (1,)
    for level in (np.int64(0), torch.tensor(0), np.array([0]), torch.tensor([0])):  # as argmax gives them
        assert model.keep_level().keep_level(level).config.inference == (0,)
    assert model.keep_level(np.arange(1, 3)).config.inference == (1, 2)
    for wrong in (([],), ([1], [2])):
        with pytest.raises(ValueError, match="are of 0 to 3"):
            model.keep_level(*wrong)


def test_checkpoints_and_plugin_files_carry_the_choice(tmp_path):
    model, batch = trained(dict_base()).keep_level(1), inputs()
    expected = model(*batch)
    torch.save(nn.ModuleDict({"net": model}).state_dict(), tmp_path / "whole.pt")
    save_plugin(model, tmp_path / "plugin.pt")
    copies = [wrap_model(copy.deepcopy(model.base)) for _ in range(3)]
    copies[0].load_state_dict(model.state_dict())
    nn.ModuleDict({"net": copies[1]}).load_state_dict(torch.load(tmp_path / "whole.pt", weights_only=True))
    load_plugin(copies[2], tmp_path / "plugin.pt")
    copies.append(load_plugin(copy.deepcopy(model.base), tmp_path / "plugin.pt"))
    for each in copies:
        assert each.config.inference == (1,)
        assert difference(each.eval()(*batch), expected) == 0


@pytest.mark.parametrize("part", ["hero.", "base.", ""])
def test_a_failed_load_leaves_the_choice(part):
    model, other = wrap_model(dict_base()).keep_level(2), trained(dict_base()).keep_level(1).state_dict()
    del other[next(name for name in other if name.startswith(part))]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(other)
    assert model.config.inference == (2,)


def test_an_older_checkpoint_leaves_all_levels():
    model = trained(dict_base())
    model.load_state_dict(dict(model.state_dict()))
    assert model.config.inference is None


@pytest.mark.parametrize("levels", [(4,), (-1,), (1, 1), (True,), (1.0,), ("1",)])
def test_a_level_that_does_not_exist_is_refused(levels):
    model = wrap_model(dict_base())
    with pytest.raises(ValueError, match="are of 0 to 3"):
        model.keep_level(*levels)


@pytest.mark.parametrize("levels", [1, "1", True, 0.5])
def test_levels_that_are_no_list_of_levels_are_refused(levels):
    with pytest.raises(ValueError, match=r"levels that answer .*as in \(1,\)"):
        HeroConfig(inference=levels)


def test_several_levels_with_the_papers_weights_are_refused():
    with pytest.raises(ValueError, match="some levels needs normalize=True"):
        wrap_model(dict_base(), config=HeroConfig.paper()).keep_level(0, 1)


def test_choose_level_keeps_the_best_level_or_all():
    scores = {(0,): 1.0, (1,): 3.0, (2,): 3.0, (3,): 2.0, (0, 1, 2, 3): 3.5}
    model = wrap_model(dict_base())

    def score(model):
        return scores[model.config.inference]

    assert choose_level(model, score) == scores
    assert model.config.inference == (0, 1, 2, 3)
    choose_level(model, score, tolerance=0.5)
    assert model.config.inference == (1,)


@pytest.mark.parametrize("config", [HeroConfig(), HeroConfig.paper()])
def test_choose_level_scores_in_eval_mode_and_leaves_the_modes(config):
    model = wrap_model(dict_base(), config=config).train()
    model.base.eval()
    modes, seen = [module.training for module in model.modules()], []
    choose_level(model, lambda model: seen.append(model.training) or sum(model.config.inference))
    assert seen == [False] * 5 and model.config.inference == (0, 1, 2, 3)
    assert modes == [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [lambda: float("nan"), lambda: 1 / 0])
def test_choose_level_that_cannot_score_leaves_what_answered(fails):
    model = wrap_model(dict_base()).keep_level(1)
    with pytest.raises((ValueError, ZeroDivisionError), match=r"score of level 0 is NaN|division"):
        choose_level(model, lambda model: fails())
    assert model.config.inference == (1,)


def test_a_base_with_several_levels_answering_is_not_exported():
    with pytest.raises(ValueError, match="levels 0, 1, 2, 3 answer: choose one"):
        export_base(wrap_model(dict_base()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tuple", "dict", "qd_detr"])
def test_torch_exports_what_export_base_returns(name):
    build, make = CASES[name]
    model, batch = trained(build(), SETTINGS["HEM alone"]).keep_level(1), make()
    exported = export_base(model)
    with torch.no_grad():
        program = torch.export.export(exported, tuple(batch))
        assert difference(program.module()(*batch), model(*batch)) <= 1e-6


@pytest.mark.slow
def test_onnx_runs_what_export_base_returns(tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnxscript to export")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime to run what is exported")
    model, batch = trained(detr.qd_detr(), SETTINGS["HEM alone"]).keep_level(1), detr.batch()
    with torch.no_grad():
        expected = [tensor.numpy() for tensor in tensors(model(*batch))]
        torch.onnx.export(export_base(model), tuple(batch), dynamo=True, verbose=False).save(tmp_path / "qd_detr.onnx")
    session = runtime.InferenceSession(tmp_path / "qd_detr.onnx")
    given = {place.name: tensor.numpy() for place, tensor in zip(session.get_inputs(), batch, strict=True)}
    for found, wanted in zip(session.run(None, given), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=5e-6)
