"""WeightedAggregation against its formula, for every kind of output."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import WeightedAggregation
from tests.core.bases import quick, shake
from tests.old_torch import HALF_TYPES


def loop_weights(aggregate):
    first, _, last = aggregate.mlp
    raw = []
    for template in aggregate.templates:
        hidden = [max(0.0, float((row * template).sum() + b)) for row, b in zip(first.weight, first.bias, strict=True)]
        bias = 0.0 if last.bias is None else float(last.bias)
        raw.append(sum(float(w) * h for w, h in zip(last.weight[0], hidden, strict=True)) + bias)
    if not aggregate.normalize:
        return raw
    return [math.exp(w) / sum(math.exp(v) for v in raw) for w in raw]


def loop_sum(weights, tensor, kind, normalize):
    """One number at a time."""
    if kind == "shared":
        return tensor[0]
    columns = tensor.flatten(1).T.tolist()
    total = []
    for column in columns:
        if kind == "logits":
            value = column[0] if column[0] <= -1e20 else sum(w * x for w, x in zip(weights, column, strict=True))
        elif normalize:
            value = sum(w * x for w, x in zip(weights, column, strict=True))
        elif not any(column):
            value = 0.0
        else:
            safe = [min(max(x, 1e-6), 1 - 1e-6) for x in column]
            logit = sum(w * math.log(x / (1 - x)) for w, x in zip(weights, safe, strict=True))
            value = 1 / (1 + math.exp(-logit))
        total.append(value)
    return torch.tensor(total, dtype=torch.float64).view(tensor.shape[1:])


def randomized(levels, normalize, seed):
    torch.manual_seed(seed)
    return shake(WeightedAggregation(levels, dim=6, normalize=normalize).double(), scale=1.0)


@given(
    levels=st.sampled_from([1, 2, 4, 8]),
    normalize=st.booleans(),
    kind=st.sampled_from(["logits", "probability", "shared"]),
    hole=st.sampled_from([None, -1e30, -math.inf]),
    seed=st.integers(0, 999),
)
@quick
@torch.no_grad()
def test_equals_a_loop(levels, normalize, kind, hole, seed):
    aggregate = randomized(levels, normalize, seed)
    tensor = torch.randn(levels, 2, 3, dtype=torch.float64)
    if kind == "probability":
        tensor = tensor.sigmoid()
        tensor[:, 0, 0] = 0.0
    elif hole is not None:
        tensor[:, 1, 2] = hole
    weights = loop_weights(aggregate)
    torch.testing.assert_close(aggregate.weights(), torch.tensor(weights, dtype=torch.float64), rtol=0, atol=1e-10)
    expected = loop_sum(weights, tensor, kind, normalize)
    torch.testing.assert_close(aggregate({"x": tensor}, {"x": kind})["x"], expected, rtol=0, atol=1e-10)


@given(normalize=st.booleans(), seed=st.integers(0, 999))
@quick
def test_probabilities_stay_probabilities(normalize, seed):
    aggregate = randomized(4, normalize, seed)
    tensor = torch.rand(4, 3, 5, dtype=torch.float64)
    tensor[..., 0], tensor[..., 1] = 0.0, 1.0
    combined = aggregate(tensor, {"": "probability"})
    assert (combined >= 0).all() and (combined <= 1).all()
    assert not combined[:, 0].any()


@given(normalize=st.booleans(), seed=st.integers(0, 999))
@quick
def test_where_a_base_leaves_the_range_it_is_not_brought_back(normalize, seed):
    """Offsets to a start are negative, and a wide moment's width exceeds its video: clamped, they would be others."""
    aggregate = randomized(4, normalize, seed)
    tensor = torch.rand(4, 3, 5, dtype=torch.float64)
    tensor[..., 0], tensor[1, :, 1] = -tensor[..., 0] - 0.1, 1.2
    combined = aggregate(tensor, {"": "probability"})
    weights = aggregate.weights().view(-1, 1, 1)
    torch.testing.assert_close(combined[:, :2], (weights * tensor)[..., :2].sum(0))
    assert (combined[:, 2:] >= 0).all() and (combined[:, 2:] <= 1).all()


def test_certain_scores_do_not_pass_one_by_rounding():
    """Binary cross-entropy raises on 1.0000001."""
    for seed in range(40):
        torch.manual_seed(seed)
        combined = WeightedAggregation(8, dim=6)(torch.ones(8, 1), {"": "probability"})
        assert combined <= 1.0


@pytest.mark.parametrize("hole", [-1e30, -math.inf])
def test_padding_stays_padding_when_weights_are_negative(hole):
    aggregate = WeightedAggregation(3, normalize=False)
    with torch.no_grad():
        aggregate.mlp[2].weight.zero_()
        aggregate.mlp[2].bias.fill_(-2.0)
    tensor = torch.randn(3, 2, 4)
    tensor[..., -1] = hole
    tensor.requires_grad_()
    combined = aggregate(tensor)
    assert (combined[:, -1] == hole).all()
    torch.testing.assert_close(combined[:, :-1], -2 * tensor[..., :-1].sum(0))
    combined[:, :-1].sum().backward()
    assert tensor.grad.isfinite().all() and not tensor.grad[..., -1].any()
    assert all(parameter.grad.isfinite().all() for parameter in aggregate.parameters())


@pytest.mark.parametrize("level", range(4))
def test_a_logit_that_one_level_rules_out_is_ruled_out_by_their_sum(level):
    aggregate, logits = WeightedAggregation(4), torch.randn(4, 6, requires_grad=True)
    ruled_out = torch.zeros(4, 6, dtype=torch.bool)
    ruled_out[level, 2] = True
    combined = aggregate(logits.masked_fill(ruled_out, -torch.inf))
    assert combined[2] == -torch.inf and combined[[0, 1, 3, 4, 5]].isfinite().all()
    combined[[0, 1]].sum().backward()
    assert logits.grad.isfinite().all()


def test_a_probability_is_ruled_out_only_where_every_level_says_so():
    """A sigmoid in half precision is 0 below -17: at one level of four, whichever that is, it is next to nothing."""
    aggregate = WeightedAggregation(4, normalize=False)
    tensor = torch.full((4, 6), 0.9)
    tensor[range(4), range(4)] = tensor[:, 5] = 0.0
    combined = aggregate({"score": tensor}, {"score": "probability"})["score"]
    assert combined[5] == 0 and (combined[:5] > 0.0).all()
    close = aggregate({"score": tensor.clamp(min=1e-6)}, {"score": "probability"})["score"]
    torch.testing.assert_close(combined[:5], close[:5])


def test_unnormalised_weights_start_near_one_over_n():
    torch.manual_seed(1)
    starts = torch.cat([WeightedAggregation(4, normalize=False).weights().detach() for _ in range(50)])
    assert abs(starts.mean() - 0.25) < 0.05


def test_normalised_weights_sum_to_one():
    weights = WeightedAggregation(8).weights()
    assert weights.shape == (8,) and (weights > 0).all()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


def test_reaches_every_tensor_and_keeps_every_type():
    point = namedtuple("point", "x mask")
    outputs = {
        "tuple": (torch.randn(2, 3), [torch.randn(2, 3)]),
        "named": point(torch.randn(2, 3), torch.ones(2, 3, dtype=torch.bool)),
        "ordered": OrderedDict(a=torch.randn(2, 3)),
        "aux": [{"spans": torch.rand(2, 3)}, {"spans": torch.rand(2, 3)}],
        "text": "as it is",
        "none": None,
    }
    aggregate = WeightedAggregation(2)
    combined = aggregate(outputs, {"spans": "probability"})
    weights = aggregate.weights()
    assert type(combined["tuple"]) is tuple and type(combined["tuple"][1]) is list
    assert type(combined["named"]) is point and type(combined["ordered"]) is OrderedDict
    assert torch.equal(combined["named"].mask, outputs["named"].mask[0])
    for got, given_ in [
        (combined["tuple"][1][0], outputs["tuple"][1][0]),
        (combined["aux"][1]["spans"], outputs["aux"][1]["spans"]),
    ]:
        torch.testing.assert_close(got, (weights.unsqueeze(1) * given_).sum(0))
    assert combined["text"] == "as it is" and combined["none"] is None


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_autocast_leaves_what_a_base_computed_in_float32(dtype):
    tensor = torch.tensor([-1e9, 1e6, 1.0001]).expand(4, 1, 3)
    with torch.autocast("cpu", dtype):
        combined = WeightedAggregation(4)(tensor)
    assert combined.dtype == torch.float32
    torch.testing.assert_close(combined, tensor[0])


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("normalize", [True, False])
def test_half_precision_outputs_keep_their_type(dtype, normalize):
    aggregate = randomized(4, normalize, seed=2).to(dtype)
    tensor = torch.tensor([0.0, 1.0, 0.9995, 0.5]).to(dtype).expand(4, 1, 4)
    combined = aggregate({"p": tensor, "x": tensor}, {"p": "probability"})
    assert combined["p"].dtype == combined["x"].dtype == dtype
    assert all(value.isfinite().all() for value in combined.values())


def test_says_what_is_missing_a_level():
    with pytest.raises(ValueError, match=r"output scores must have 4 levels first, got \(3, 2\)"):
        WeightedAggregation(4)({"scores": torch.randn(3, 2)})


@pytest.mark.parametrize("normalize", [True, False])
def test_directions_keep_their_length(normalize):
    aggregate = shake(WeightedAggregation(4, normalize=normalize))
    directions = torch.nn.functional.normalize(torch.randn(4, 3, 5, 8), dim=-1)
    combined = aggregate({"proj": directions}, {"proj": "direction"})["proj"]
    torch.testing.assert_close(combined.norm(dim=-1), torch.ones(3, 5))
    mixed = torch.tensordot(aggregate.weights(), directions, dims=1)
    torch.testing.assert_close(combined, mixed / mixed.norm(dim=-1, keepdim=True))
    assert aggregate({"proj": directions[:, :, :0]}, {"proj": "direction"})["proj"].shape == (3, 0, 8)


def test_what_is_whole_is_left_as_it_is():
    token = torch.nn.Parameter(torch.randn(7, 2))
    combined = WeightedAggregation(4)({"token": token, "list": [token]}, {"token": "whole", "list": "whole"})
    assert combined["token"] is token and combined["list"][0] is token


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"kind of output 'x' must be one of 'logits', .*, got 'logit'"):
        WeightedAggregation(levels=2)({"x": torch.rand(2, 3)}, {"x": "logit"})
