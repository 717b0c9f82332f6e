"""Levels of the query that come with the input: layers of a pretrained text encoder in place of HERO's own."""

from __future__ import annotations

import pytest
import torch

from hero_plugin import HeroConfig, Pair, config_of, export_base, load_plugin, save_plugin, wrap_model
from tests.core import detr, emb
from tests.core.bases import difference

LEVELS = 3
BASES = {"moment_detr": detr.moment_detr, "qd_detr": detr.qd_detr, "tr_detr": detr.tr_detr}


def with_levels():
    """A batch whose words have three levels, (B, L, N, D)."""
    words, *rest = detr.batch()
    return (torch.stack([words, *(torch.randn_like(words) for _ in range(LEVELS - 1))], dim=2), *rest)


def wrapped(base, **changes):
    torch.manual_seed(1)
    model = wrap_model(base, levels=LEVELS, levels_from="input", **changes).eval()
    with torch.no_grad():
        model.hero.aggregation.templates.normal_()
    return model


@pytest.mark.parametrize("name", BASES)
def test_each_level_answers_as_the_base_does_to_that_level_s_words(name):
    """Without SGVF, one level is the base itself on the words of that layer."""
    base = BASES[name]().eval()
    words, *rest = with_levels()
    model = wrapped(base, sgvf=False, cmtr=False)
    with torch.no_grad():
        for level in range(LEVELS):
            alone = base(words[:, :, level], *rest)
            answer = model.keep_level(level)(words, *rest)
            for key in ("pred_logits", "pred_spans", "saliency_scores"):
                torch.testing.assert_close(answer[key], alone[key], rtol=0, atol=1e-6)
            exported = export_base(model)
            assert difference(exported(words, *rest), answer) <= 1e-6


def test_all_levels_answer_by_their_weights():
    base = detr.moment_detr().eval()
    words, *rest = with_levels()
    model = wrapped(base, sgvf=False, cmtr=False)
    with torch.no_grad():
        levels = torch.stack([base(words[:, :, level], *rest)["pred_logits"] for level in range(LEVELS)])
        expected = (model.level_weights().view(-1, 1, 1, 1) * levels).sum(0)
        torch.testing.assert_close(model(words, *rest)["pred_logits"], expected)


@pytest.mark.parametrize("name", BASES)
def test_all_of_hero_trains_on_them_and_has_no_encoder_of_its_own(name):
    words, *rest = with_levels()
    model = wrapped(BASES[name]()).train()
    outputs = model(words, *rest)
    assert outputs["hero"]["masked_relevance"].shape == rest[0].shape[:1] + outputs["hero"]["relevance"].shape[1:]
    (outputs["pred_logits"].square().sum() + model.relevance.square().sum()).backward()
    assert model.hero.hem is None
    assert model.base.input_txt_proj[0].net[1].weight.grad.abs().sum() > 0
    assert not [name for name, parameter in model.hero.named_parameters() if name.startswith("hem")]


def test_every_level_reaches_the_answer_and_no_other_sample_s_does():
    words, *rest = with_levels()
    model = wrapped(detr.moment_detr())
    words.requires_grad_()
    model(words, *rest)["pred_logits"][0].square().sum().backward()
    assert (words.grad[0].abs().amax((0, 2)) > 0).all()
    assert not words.grad[1:].any()


@pytest.mark.parametrize("shape", ["(B, L, D)", "another number of levels"])
def test_words_without_these_levels_are_refused(shape):
    words, *rest = with_levels()
    words = words[:, :, 0] if shape == "(B, L, D)" else words[:, :, :2]
    with pytest.raises(ValueError, match=r"levels_from='input', must be \(B, L, N, D\)"):
        wrapped(detr.qd_detr())(words, *rest)


def test_a_base_that_reads_word_ids_has_no_levels_in_its_input():
    with pytest.raises(ValueError, match=r"levels_from='input', must be \(B, L, N, D\)"):
        wrap_model(emb.emb(), levels=LEVELS, levels_from="input")(*emb.batch())


def test_levels_without_the_choice_are_refused():
    words, *rest = with_levels()
    with pytest.raises(ValueError, match=r"must be \(B, L, D\)"):
        wrap_model(detr.qd_detr(), levels=LEVELS)(words, *rest)
    with pytest.raises(ValueError, match="src_txt must be"):
        wrapped(detr.qd_detr()).base(words, *rest)


def test_the_config_says_what_it_is(tmp_path):
    model = wrapped(detr.qd_detr())
    assert config_of(model.state_dict()) == model.config
    assert not model.config.starts_as_base and "reads no levels" in model.config.departures[0]
    assert "stride" not in model.config.architecture(16)
    with pytest.raises(ValueError, match="needs two levels or more"):
        HeroConfig(levels=1, levels_from="input")
    with pytest.raises(RuntimeError, match="levels_from='input'"):
        wrap_model(detr.qd_detr(), levels=LEVELS).load_state_dict(model.state_dict())
    save_plugin(model, tmp_path / "plugin.pt")
    batch = with_levels()
    base = detr.qd_detr()
    base.load_state_dict(model.base.state_dict())
    with torch.no_grad():
        assert difference(load_plugin(base.eval(), tmp_path / "plugin.pt").eval()(*batch), model(*batch)) == 0


def test_the_pair_keeps_the_first_level_as_its_query():
    model, batch = wrapped(detr.qd_detr()), with_levels()
    pair = model.grounder.embed(*batch)
    read, levels = model.hero.read(pair)
    assert isinstance(read, Pair) and torch.equal(read.query, levels[0])
    assert torch.equal(model.hero.read(pair, (2,))[1], levels[2:])
