"""clip_labels against its definition, clip by clip, in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin import clip_labels
from tests.core.bases import lengths_mask
from tests.core.quick import quick

SIXTEENTHS = 16
moment = st.tuples(st.integers(0, SIXTEENTHS), st.integers(0, SIXTEENTHS)).filter(lambda ends: ends[0] < ends[1])
query = st.lists(moment, max_size=3)


def loop(moments, clips, length):
    row = []
    for place in range(length):
        inside = False
        for start, end in moments:
            start, end = Fraction(start, SIXTEENTHS), Fraction(end, SIXTEENTHS)
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
    expected = [loop(moments, clips, mask.shape[1]) for moments, clips in samples]
    assert clip_labels(spans, mask).tolist() == expected


def test_several_moments_are_a_union():
    spans = [torch.tensor([[0.125, 0.25], [0.875, 0.25]])]
    assert clip_labels(spans, torch.ones(1, 8)).tolist() == [[1, 1, 0, 0, 0, 0, 1, 1]]


def test_a_moment_shorter_than_a_clip_marks_the_clip_it_is_in():
    assert clip_labels([torch.tensor([[0.3, 0.01]])], torch.ones(1, 4)).tolist() == [[0, 1, 0, 0]]


def test_fractions_are_of_the_real_video_not_of_the_padded_one():
    spans = [torch.tensor([[0.75, 0.5]])] * 2
    assert clip_labels(spans, lengths_mask((8, 4))).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0]]


def test_no_moment_no_clip():
    assert not clip_labels([torch.zeros(0, 2)], torch.ones(1, 4)).any()
