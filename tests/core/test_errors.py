"""Promise 7: a base that cannot be wrapped, or a choice that does not exist, gets an error that helps."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import pytest
import torch
from torch import nn

from hero_plugin import CMTR, HEM, SGVF, Adapter, HeroConfig, TwoStage, known_adapters, wrap_model
from hero_plugin.adapters.emb.adapter import EMBAdapter
from hero_plugin.losses import PairRelevance
from tests.core import emb
from tests.core.bases import QUERY_DIM, VIDEO_DIM, ToyFuser, TuplePredictor, inputs, tuple_base


class Unknown(nn.Module):
    """A base that nobody wrote an adapter for."""


def test_an_unknown_base_is_told_what_to_do():
    with pytest.raises(TypeError) as error:
        wrap_model(Unknown())
    message = str(error.value)
    assert "no adapter knows Unknown" in message
    for adapter in known_adapters():
        assert all(name in message for name in adapter.class_names)
    for hint in (
        "EMB",
        "TwoStage",
        "hero_plugin.Adapter",
        "adapter=YourAdapter",
        "docs/guide/own_base.md",
    ):
        assert hint in message


@pytest.mark.parametrize("missing", ["video_affine", "encoder.w2f", "fuser1", "highlight_layer"])
def test_a_fork_is_told_which_attribute_is_missing(missing):
    base = emb.emb()
    owner = base.get_submodule(missing.rpartition(".")[0])
    delattr(owner, missing.rpartition(".")[2])
    with pytest.raises(
        TypeError, match=f"EMB was recognised by EMBAdapter, but it has no attribute '{missing}"
    ) as error:
        wrap_model(base)
    assert "docs/guide/own_base.md" in str(error.value)


def test_wrapping_twice():
    with pytest.raises(TypeError, match=r"already has HERO around it: unwrap_model\(model\) gives the base back"):
        wrap_model(wrap_model(tuple_base()))


@pytest.mark.parametrize("around", [nn.DataParallel, lambda base: torch.compile(base, backend="eager")])
def test_wrapping_what_is_already_parallel_or_compiled(around):
    with pytest.raises(TypeError, match=r"wrap the model itself, then (\w+): \1\(wrap_model\(base\)\)"):
        wrap_model(around(tuple_base()))


def test_what_is_no_module():
    with pytest.raises(TypeError, match=r"wrap_model takes a torch.nn.Module, got dict"):
        wrap_model({})


@pytest.mark.parametrize(("wrong", "right"), [("level", "levels"), ("mask_rate", "mask_ratio"), ("sgfv", "sgvf")])
def test_a_misspelt_choice_suggests_the_right_one(wrong, right):
    with pytest.raises(TypeError, match=f"HeroConfig has no choice '{wrong}'; did you mean '{right}'"):
        wrap_model(tuple_base(), **{wrong: 2})


def test_a_choice_like_no_other_lists_them_all():
    with pytest.raises(TypeError, match=r"HeroConfig has no choice 'zzz'\. Choices: levels, sgvf, cmtr"):
        wrap_model(tuple_base(), zzz=2)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"levels": 0}, "levels must be a whole number of at least 1, got 0"),
        ({"levels": 2.0}, "levels must be a whole number of at least 1, got 2.0"),
        ({"levels": True}, "levels must be a whole number of at least 1, got True"),
        ({"stride": 0}, "stride must be a whole number"),
        ({"num_heads": -1}, "num_heads must be a whole number"),
        ({"feedforward": 0}, "feedforward must be a whole number"),
        ({"aggregation_dim": 0}, "aggregation_dim must be a whole number"),
        ({"mask_ratio": 0.0}, "to mask nothing, set cmtr=False"),
        ({"mask_ratio": 1.0}, "mask_ratio must be between 0 and 1, got 1.0"),
        ({"mask_ratio": float("nan")}, "mask_ratio must be between 0 and 1, got nan"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"sgvf": "off"}, "sgvf must be True or False, got 'off'"),
        ({"cmtr": "false"}, "cmtr must be True or False, got 'false'"),
        ({"normalize": None}, "normalize must be True or False, got None"),
        ({"sgvf": 0}, "sgvf must be True or False, got 0"),
        ({"dropout": "0.1"}, "dropout must be a number, got '0.1'"),
        ({"mask_ratio": True}, "mask_ratio must be a number, got True"),
        ({"relevance_weight": None}, "relevance_weight must be a number, got None"),
        ({"norm": "middle"}, "norm must be one of 'pre', 'post', got 'middle'"),
        ({"noise_size": 0.0}, "noise_size must be positive, got 0.0"),
        ({"noise_size": float("inf")}, "noise_size must be positive, got inf"),
        ({"perturb": "swap"}, "perturb must be one of 'mask', 'noise', got 'swap'"),
        ({"gate": "tanh"}, "gate must be one of 'residual', 'sigmoid', got 'tanh'"),
        ({"relevance": "none"}, "relevance must be one of 'base', 'pair', got 'none'"),
        ({"consistency": "kl"}, "consistency must be one of 'clips', 'bernoulli', got 'kl'"),
        ({"relevance_weight": -0.1}, "loss weights must not be negative, got relevance_weight=-0.1"),
        ({"consistency_weight": float("nan")}, "loss weights must not be negative"),
        ({"norm": "post"}, "identity_start needs norm='pre'"),
        ({"relevance_weight": 0, "consistency_weight": 0}, "both weights are 0; set cmtr=False"),
        ({"num_heads": 3}, "dim must be a multiple of num_heads, got dim=16, num_heads=3"),
    ],
)
def test_impossible_values(choice, message):
    with pytest.raises(ValueError, match=message):
        wrap_model(tuple_base(), **choice)


def test_the_config_is_frozen_and_says_what_the_paper_says():
    config = HeroConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.levels = 2
    assert (config.levels, config.stride, config.mask_ratio) == (4, 2, 0.3)
    assert config.loss_weights == {"loss_relevance": 0.1, "loss_consistency": 0.1}
    paper = HeroConfig.paper()
    literal = (paper.norm, paper.gate, paper.normalize, paper.identity_start, paper.positions, paper.projections)
    assert literal == ("post", "sigmoid", False, False, False, False)
    assert HeroConfig.paper(levels=8).levels == 8 and HeroConfig.paper(levels=8).gate == "sigmoid"


def test_choices_go_over_the_config():
    model = wrap_model(tuple_base(), 2, config=HeroConfig.paper(), mask_ratio=0.5)
    assert model.config == HeroConfig.paper(levels=2, mask_ratio=0.5)


def test_a_base_without_a_clip_score_asks_for_the_pair():
    def base():
        return TwoStage(ToyFuser(6), TuplePredictor(6), 6, project_query=nn.Linear(5, 6))

    model = wrap_model(base(), num_heads=2)
    with pytest.raises(
        ValueError, match="TwoStage has no clip score to use as relevance: wrap it with relevance='pair'"
    ):
        model(*inputs())
    assert wrap_model(base(), num_heads=2, relevance="pair")(*inputs())[0].shape == (3, 7)


@pytest.mark.parametrize(
    "part, said",
    [
        (
            {"relevance": "pair"},
            r"relevance must be .*'pair'; wrap_model\(\.\.\., relevance='pair'\) is the option",
        ),
        ({"project_video": 6}, "TwoStage's project_video must be a module or a function, got 6"),
        ({"kinds": ["logits"]}, r"kinds must name outputs, as \{'score': 'logits'\}, got \['logits'\]"),
    ],
)
def test_parts_of_two_stages_that_are_none(part, said):
    with pytest.raises(TypeError, match=said):
        TwoStage(ToyFuser(6), TuplePredictor(6), 6, **part)


class Scored(TuplePredictor):
    """A predictor that scores clips, too."""

    def __init__(self, dim):
        super().__init__(dim)
        self.score = nn.Linear(dim, 1)

    def rank(self, fused):
        return self.score(fused).squeeze(-1)


def test_a_function_around_a_module_is_told_and_its_method_is_copied(recwarn):
    head = Scored(6)
    with pytest.warns(UserWarning, match="TwoStage's relevance is a function around a Scored: a copy"):
        TwoStage(ToyFuser(6), head, 6, relevance=lambda fused: head.rank(fused))
    recwarn.clear()
    base = TwoStage(ToyFuser(6), head, 6, project_query=nn.Linear(5, 6), relevance=head.rank)
    copied = copy.deepcopy(base)
    nn.init.zeros_(copied.predictor.score.weight)
    nn.init.zeros_(copied.predictor.score.bias)
    model = wrap_model(copied, num_heads=2)
    model(*inputs())
    assert not model.relevance.any() and head.score.weight.any() and not recwarn


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_clip_scores_of_another_shape_are_refused(batch):
    """(B, T, 1) would spread over the mask's axes: without an error for one sample, or as many as there are clips."""
    base = tuple_base()
    base.relevance = base.relevance[0]
    with pytest.raises(ValueError, match=rf"TwoStage's clip scores are \({batch}, 7, 1\) .* \({batch}, 7\).*'pair'"):
        wrap_model(base)(*inputs((7,) * batch, (5,) * batch))


def test_an_adapter_that_is_named_checks_the_base_as_well():
    base = emb.emb()
    del base.encoder.w2f
    with pytest.raises(TypeError, match=r"EMBAdapter, but it has no attribute 'encoder.w2f'"):
        wrap_model(base, adapter=EMBAdapter)


@pytest.mark.parametrize("call", ["hem", "sgvf", "sgvf's mask", "cmtr", "pair"])
def test_too_few_or_too_many_axes_are_told_by_name(call):
    words, levels, clips = torch.randn(2, 3, 16), torch.randn(2, 2, 3, 16), torch.randn(2, 4, 16)
    calls = {
        "hem": lambda: HEM(16, num_heads=2)(words[0], torch.ones(3)),
        "sgvf": lambda: SGVF(16, 2)(clips[0], levels, torch.ones(2, 3)),
        "sgvf's mask": lambda: SGVF(16, 2)(clips, levels, torch.ones(2, 3, 1)),
        "cmtr": lambda: CMTR(16, 2)(levels, torch.ones(3)),
        "pair": lambda: PairRelevance(16)(clips, levels, torch.ones(3)),
    }
    with pytest.raises(ValueError, match=r"must be \(.*\)=\(.*\), got \("):
        calls[call]()


def test_common_slips_are_told():
    with pytest.raises(TypeError, match=r"wrap_model\(base, config=config\)"):
        wrap_model(tuple_base(), HeroConfig())
    with pytest.raises(ValueError, match=r"wrap_model\(base, num_heads=4\)"):
        wrap_model(tuple_base(), num_heads=5)
    with pytest.raises(TypeError, match=r"video_mask must be a tensor, got NoneType: torch.ones\(...\)"):
        wrap_model(tuple_base())(*inputs()[:2], None, None)


def test_a_config_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="config must be a HeroConfig, got dict: single choices are arguments"):
        wrap_model(tuple_base(), config={"levels": 2})


def test_an_adapter_that_is_made_already_is_told_from_its_class():
    base = emb.emb()
    with pytest.raises(TypeError, match="adapter takes a class, or a function of the base: give EMBAdapter itself"):
        wrap_model(base, adapter=EMBAdapter(base))


class WithAHead(Adapter):
    """Makes a clip score of its own, as nobody would train it."""

    dim, kinds, embed, ground, relate = 16, {}, None, None, None

    made = staticmethod(lambda head: head)

    def __init__(self, base):
        super().__init__(base)
        self.score = self.made(nn.Linear(2, 1))


@pytest.mark.parametrize("made", [lambda head: head, lambda head: [head], lambda head: {"head": head}])
def test_parameters_of_an_adapter_are_refused(monkeypatch, made):
    monkeypatch.setattr(WithAHead, "made", staticmethod(made))
    with pytest.raises(ValueError, match=r"WithAHead holds parameters of its own \(score\).*part of the base"):
        wrap_model(tuple_base(), adapter=WithAHead)


def test_whole_numbers_without_a_kind_are_told():
    class Decodes(nn.Module):
        def forward(self, fused, video_mask):
            return {"score": (scores := fused.sum(-1)), "clip": scores.argmax(-1)}

    def base(**kinds):
        return TwoStage(ToyFuser(8), Decodes(), 8, nn.Linear(VIDEO_DIM, 8), nn.Linear(QUERY_DIM, 8), kinds=kinds)

    with pytest.warns(UserWarning, match=r"output 'clip' holds whole numbers and has no kind.*level 0 alone"):
        wrap_model(base(), relevance="pair", num_heads=2)(*inputs())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap_model(base(clip="shared"), relevance="pair", num_heads=2)(*inputs())
        wrap_model(base(), relevance="pair", levels=1)(*inputs())


def test_a_part_under_a_name_of_heros_is_refused():
    with pytest.raises(AttributeError, match=r"relevance is HERO's own here: of the base, it is model.base.relevance"):
        wrap_model(tuple_base()).relevance = nn.Linear(2, 1)
