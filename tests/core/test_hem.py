"""HEM against the equations of a Transformer encoder, written out word by word."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import HEM
from tests.core.bases import lengths_mask, quick, shake

HEADS, DIM = 2, 8


def normalize(x, norm):
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / math.sqrt(variance + norm.eps) * norm.weight + norm.bias


def affine(x, linear):
    return torch.stack([(row * x).sum() + shift for row, shift in zip(linear.weight, linear.bias, strict=True)])


def attention(words, real, layer, places):
    """Multi-head attention; positions take part in the comparison, not in what is carried."""
    size = DIM // HEADS
    placed = [word + place for word, place in zip(words, places, strict=True)]
    compared = [affine(word, layer.compare) for word in placed]
    values = [affine(word, layer.value) for word in words]
    result = []
    for i in range(len(words)):
        context = torch.zeros(DIM, dtype=torch.float64)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            exps = {
                j: torch.exp((compared[i][:DIM][part] * compared[j][DIM:][part]).sum() / math.sqrt(size))
                for j in range(len(words))
                if real[j]
            }
            for j, weight in exps.items():
                context[part] += weight / sum(exps.values()) * values[j][part]
        result.append(affine(context, layer.output))
    return result


def feedforward(word, layer):
    return affine(torch.clamp(affine(word, layer.expand), min=0), layer.contract)


def encode(words, real, layer, places, norm):
    if norm == "pre":
        update = attention([normalize(word, layer.attention_norm) for word in words], real, layer, places)
        words = [word + more for word, more in zip(words, update, strict=True)]
        return [word + feedforward(normalize(word, layer.feedforward_norm), layer) for word in words]
    update = attention(words, real, layer, places)
    words = [normalize(word + more, layer.attention_norm) for word, more in zip(words, update, strict=True)]
    return [normalize(word + feedforward(word, layer), layer.feedforward_norm) for word in words]


def place(position):
    angles = [position / 10000 ** (2 * pair / DIM) for pair in range(DIM // 2)]
    return torch.tensor([wave(angle) for angle in angles for wave in (math.sin, math.cos)], dtype=torch.float64)


def loop(hem, query, mask, norm, positions):
    levels = [query]
    batch = [list(sample) for sample in query]
    places = [place(i) if positions else torch.zeros(DIM, dtype=torch.float64) for i in range(query.shape[1])]
    for depth, layer in enumerate(hem.layers, start=1):
        batch = [encode(words, real, layer, places, norm) for words, real in zip(batch, mask, strict=True)]
        if depth % hem.stride == 0:
            levels.append(torch.stack([torch.stack(words) for words in batch]) * mask.unsqueeze(-1))
    return torch.stack(levels)


@given(
    levels=st.sampled_from([1, 2, 4, 8]),
    stride=st.sampled_from([1, 2]),
    norm=st.sampled_from(["pre", "post"]),
    positions=st.booleans(),
    words=st.lists(st.integers(0, 4), min_size=1, max_size=2).map(tuple),
    seed=st.integers(0, 99),
)
@quick
@torch.no_grad()
def test_equals_a_loop(levels, stride, norm, positions, words, seed):
    torch.manual_seed(seed)
    stride = 1 if levels == 8 else stride
    hem = HEM(DIM, levels, stride, HEADS, 6, norm=norm, identity_start=norm == "pre", positions=positions)
    shake(hem.double().eval())
    mask = lengths_mask(words, torch.float64)
    query = torch.randn(*mask.shape, DIM, dtype=torch.float64)
    expected = loop(hem, query, mask, norm, positions)
    assert len(hem.layers) == stride * (levels - 1)
    torch.testing.assert_close(hem(query, mask), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_level_zero_is_the_query_and_all_levels_start_as_it(levels):
    hem, mask = HEM(16, levels), lengths_mask((4, 2))
    query = torch.randn(2, 4, 16)
    out = hem(query, mask)
    assert torch.equal(out[0], query)
    assert torch.equal(out[1:], (query * mask.unsqueeze(-1)).expand(levels, -1, -1, -1)[1:])


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_without_identity_start_the_levels_differ(norm):
    hem = HEM(16, 4, norm=norm, identity_start=False).eval()
    out = hem(torch.randn(2, 4, 16), lengths_mask((4, 2)))
    for level in range(1, 4):
        assert not torch.allclose(out[level], out[level - 1], atol=1e-3)


def test_positions_make_word_order_matter():
    query, mask = torch.randn(1, 4, 16), torch.ones(1, 4)
    for positions in (True, False):
        hem = shake(HEM(16, 2, positions=positions)).eval()
        swapped = hem(query.flip(1), mask).flip(2)
        assert torch.allclose(hem(query, mask), swapped, atol=1e-5) is not positions


def test_paper_has_six_layers():
    assert len(HEM(128, 4).layers) == 6


def test_heads_must_divide_the_size():
    HEM(10, levels=1)
    with pytest.raises(ValueError, match=r"multiple of num_heads, got dim=10, num_heads=8"):
        HEM(10, levels=2)


def test_says_which_shape_is_wrong():
    hem = HEM(16)
    with pytest.raises(ValueError, match=r"query_mask must be \(B, L\)=\(4, 12\), got \(4, 11\)"):
        hem(torch.randn(4, 12, 16), torch.ones(4, 11))
    with pytest.raises(ValueError, match=r"query must be \(B, L, D\)=\(B, L, 16\), got \(4, 12, 8\)"):
        hem(torch.randn(4, 12, 8), torch.ones(4, 12))


def test_dropout_acts_in_training_only():
    hem, mask = shake(HEM(16, dropout=0.5)), torch.ones(2, 4)
    query = torch.randn(2, 4, 16)
    assert not torch.equal(hem.train()(query, mask), hem(query, mask))
    assert torch.equal(hem.eval()(query, mask), hem(query, mask))
