"""clip_labels against its definition, clip by clip, in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import clip_labels
from tests.core.bases import lengths_mask, quick

SIXTEENTHS = 16
moment = st.tuples(st.integers(0, SIXTEENTHS), st.integers(0, SIXTEENTHS)).filter(lambda ends: ends[0] < ends[1])
query = st.lists(moment, max_size=3)


def loop(moments, clips, length):
    """(start, end) fractions of the video -> 0/1 of every clip."""
    row = []
    for place in range(length):
        inside = False
        for start, end in moments:
            middle = (place + Fraction(1, 2)) / clips if clips else 2
            holds = Fraction(place) <= (start + end) / 2 * clips < place + 1
            inside = inside or start <= middle <= end or holds
        row.append(float(inside and place < clips))
    return row


@given(st.lists(st.tuples(query, st.sampled_from([0, 1, 2, 4, 8, 16])), min_size=1, max_size=4))
@quick
def test_equals_a_loop(samples):
    """Sixteenths and powers of two are exact in floating point, so the edges are compared too."""
    mask = lengths_mask(tuple(clips for _, clips in samples))
    spans = [
        torch.tensor([[(s + e) / 2 / SIXTEENTHS, (e - s) / SIXTEENTHS] for s, e in moments]).reshape(-1, 2)
        for moments, _ in samples
    ]
    exact = [[(Fraction(s, SIXTEENTHS), Fraction(e, SIXTEENTHS)) for s, e in moments] for moments, _ in samples]
    expected = [loop(moments, clips, mask.shape[1]) for moments, (_, clips) in zip(exact, samples, strict=True)]
    assert clip_labels(spans, mask).tolist() == expected


@given(st.integers(1, 300), st.sampled_from([1, 2, 3]), st.data())
@quick
def test_float32_spans_may_touch_borders_and_middles(clips, clip_length, data):
    """Seconds on clip borders and clip middles, through the float32 that the field's datasets make of them."""
    half = st.integers(0, 2 * clips)
    halves = data.draw(st.lists(st.tuples(half, half).filter(lambda ends: ends[0] < ends[1]), min_size=1, max_size=4))
    seconds = torch.tensor(halves) * (clip_length / 2)
    windows = seconds / (clips * clip_length)
    spans = torch.stack([windows.sum(-1) * 0.5, windows[:, 1] - windows[:, 0]], dim=-1)
    exact = [(Fraction(start, 2 * clips), Fraction(end, 2 * clips)) for start, end in halves]
    assert clip_labels([spans], torch.ones(1, clips)).tolist() == [loop(exact, clips, clips)]


def test_several_moments_are_a_union():
    spans = [torch.tensor([[0.125, 0.25], [0.875, 0.25]])]
    assert clip_labels(spans, torch.ones(1, 8)).tolist() == [[1, 1, 0, 0, 0, 0, 1, 1]]


def test_a_moment_shorter_than_a_clip_marks_its_clip():
    assert clip_labels([torch.tensor([[0.3, 0.01]])], torch.ones(1, 4)).tolist() == [[0, 1, 0, 0]]


def test_fractions_are_of_the_real_video():
    spans = [torch.tensor([[0.75, 0.5]])] * 2
    assert clip_labels(spans, lengths_mask((8, 4))).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0]]


@given(query, st.integers(0, 2))
@quick
def test_a_moment_of_no_width_says_nothing(moments, more):
    """Beside others it is left out; alone, [0, 0] as data sets of highlights have it, all clips are unknown."""
    real = torch.tensor([[(s + e) / 2 / SIXTEENTHS, (e - s) / SIXTEENTHS] for s, e in moments]).reshape(-1, 2)
    mask, spans = torch.ones(1, 8), torch.cat([real, torch.zeros(more, 2)])
    expected = clip_labels([real], mask) if moments or not more else -mask
    assert torch.equal(clip_labels([spans], mask), expected)


def test_no_moment_no_clip():
    assert not clip_labels([torch.zeros(0, 2)], torch.ones(1, 4)).any()


index = st.integers(0, 12)


@given(st.lists(st.tuples(st.lists(st.tuples(index, index), max_size=3), st.integers(0, 10)), min_size=1, max_size=4))
@quick
def test_clip_indices_are_inclusive(samples):
    mask = lengths_mask(tuple(clips for _, clips in samples))
    spans = [torch.tensor(moments, dtype=torch.long).reshape(-1, 2) for moments, _ in samples]
    expected = [
        [
            float(place < clips and any(first <= place <= max(first, last) for first, last in moments))
            for place in range(mask.shape[1])
        ]
        for moments, clips in samples
    ]
    assert clip_labels(spans, mask, "ce").tolist() == expected


def test_both_kinds_of_spans_name_the_same_clips():
    """Seconds [4, 10] of a video of ten clips of 2 s, as upstream's datasets turn them into targets."""
    normalized, indices = torch.tensor([[0.35, 0.3]]), torch.tensor([[2, 4]])
    assert torch.equal(
        clip_labels([normalized], torch.ones(1, 10)),
        clip_labels([indices], torch.ones(1, 10), "ce"),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float(dtype):
    spans = [torch.tensor([[0.25, 0.5]], dtype=dtype)]
    assert clip_labels(spans, torch.ones(1, 8, dtype=dtype)).tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]


def test_whole_numbers_are_not_taken_for_fractions():
    with pytest.raises(ValueError, match=r"normalized .* got whole numbers: .* span_loss_type='ce'"):
        clip_labels([torch.tensor([[2, 4]])], torch.ones(1, 10))


def test_every_query_has_its_spans():
    with pytest.raises(ValueError, match=r"one \(moments, 2\) for each of 2 queries, got 1"):
        clip_labels([torch.tensor([[0.5, 0.5]])], torch.ones(2, 10))


@pytest.mark.parametrize("spans", [[[10.0, 25.0]], [[0.5, 2.2]], [[5.0, 0.2]]])
def test_spans_in_seconds_are_refused(spans):
    with pytest.raises(RuntimeError, match=r"spans must be \(center, width\) in \[0, 1\] .*: these are larger"):
        clip_labels([torch.tensor(spans)], torch.ones(1, 8))


def test_a_video_may_be_longer_than_its_clips():
    """Five clips of 2 s of a video of 11.9 s: what lies past them is cut, and a moment past them is in the last."""
    moments = torch.tensor([[7.0, 11.9], [10.5, 11.9], [0.0, 11.9]]) / 10
    spans = torch.stack([moments.mean(1), moments[:, 1] - moments[:, 0]], 1)
    labels = clip_labels(list(spans.unsqueeze(1)), torch.ones(3, 5))
    assert labels.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("spans, kind", [([[0.4, 0.5]], "l1"), ([[1, 2]], "ce")])
def test_padding_may_be_on_the_left(spans, kind):
    right = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    labels = clip_labels([torch.tensor(spans)], right, kind)
    assert labels.sum() == 2
    assert torch.equal(clip_labels([torch.tensor(spans)], right.flip(1), kind), labels.roll(3, 1))
