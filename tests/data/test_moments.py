"""Moments to clips: the fast form equals a literal search, and upstream's; both directions agree."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hero_plugin.integrations.data.moments import (
    clip_length_problem,
    clips_to_moment,
    moment_to_clips,
    moments_to_clips,
    saliency_from_moments,
)

ROUNDINGS = ("best_iou", "floor", "nearest", "outward")


def literal_best(start, end, clips, duration):
    """Compare the moment with every range of clips; the first of the best wins. Edges in float32, as upstream."""
    lefts = np.arange(0, clips).astype(np.float32) / float(clips) * duration
    rights = np.arange(1, clips + 1).astype(np.float32) / float(clips) * duration
    best, answer = -1.0, (0, 0)
    for first in range(clips):
        for last in range(clips):
            left, right = float(lefts[first]), float(rights[last])
            inside = max(0.0, min(right, end) - max(left, start))
            overlap = inside / max(1e-12, max(right, end) - min(left, start))
            if overlap > best:
                best, answer = overlap, (first, last)
    return answer


durations = st.one_of(st.floats(0.5, 300), st.integers(1, 3000).map(lambda x: x / 10), st.integers(1, 200).map(float))


@st.composite
def problems(draw):
    """A video and a moment, often with boundaries on clip edges, sometimes beyond the video."""
    clips, duration = draw(st.integers(1, 24)), draw(durations)
    edges = st.integers(0, 2 * clips).map(lambda half: half * duration / (2 * clips))
    times = st.one_of(edges, st.floats(0, 1.2).map(lambda x: x * duration))
    start, end = sorted((draw(times), draw(times)))
    assume(end > start)
    return start, end, clips, duration


@settings(deadline=None)
@given(problems())
@example((7.0, 7.5, 4, 4.0))
@example((1.0, 3.0, 2, 4.0))
def test_best_iou_is_the_literal_search(problem):
    assert moment_to_clips(*problem) == literal_best(*problem)


@pytest.mark.upstream
def test_best_iou_is_upstreams(emb_data_util):
    rng = random.Random(0)
    for _ in range(300):
        clips, duration = rng.choice([1, 2, 5, 16, 64]), rng.choice([rng.uniform(1, 200), float(rng.randrange(1, 60))])
        start = rng.choice([rng.uniform(0, duration), rng.randrange(clips) * duration / clips])
        end = start + rng.choice([0.1, rng.uniform(0.1, duration), duration / clips])
        theirs = emb_data_util.time_to_index(start, end, clips, duration)[:2]
        assert moment_to_clips(start, end, clips, duration) == tuple(int(index) for index in theirs)
        first, last = sorted((rng.randrange(clips), rng.randrange(clips)))
        times = emb_data_util.index_to_time(first, last, clips, duration)
        assert clips_to_moment(first, last, clips, duration) == pytest.approx([float(t) for t in times], rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(problems(), min_size=1, max_size=8), st.sampled_from(ROUNDINGS))
def test_many_at_once_are_each_alone(rows, rounding):
    starts, ends, clips, lengths = zip(*rows, strict=True)
    first, last = moments_to_clips(starts, ends, clips, lengths, rounding)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [moment_to_clips(*row, rounding) for row in rows]


@given(st.integers(1, 500), durations, st.data(), st.sampled_from(ROUNDINGS))
def test_clips_survive_the_way_to_seconds_and_back(clips, duration, data, rounding):
    first = data.draw(st.integers(0, clips - 1))
    last = data.draw(st.integers(first, clips - 1))
    assert moment_to_clips(*clips_to_moment(first, last, clips, duration), clips, duration, rounding) == (first, last)


@given(problems(), st.sampled_from(ROUNDINGS))
def test_answers_are_ranges_of_clips(problem, rounding):
    first, last = moment_to_clips(*problem, rounding)
    assert 0 <= first <= last < problem[2]


def test_the_roundings_by_example():
    # ten clips of one second
    assert moment_to_clips(2.4, 6.6, 10, 10.0, "floor") == (2, 5)
    assert moment_to_clips(2.4, 6.6, 10, 10.0, "nearest") == (2, 6)
    assert moment_to_clips(2.6, 6.4, 10, 10.0, "nearest") == (3, 5)
    assert moment_to_clips(2.4, 6.6, 10, 10.0, "outward") == (2, 6)
    assert moment_to_clips(2.1, 2.4, 10, 10.0, "floor") == (2, 2)  # empty: the clip of its middle
    assert moment_to_clips(9.0, 12.0, 10, 10.0, "floor") == (9, 9)
    assert moment_to_clips(12.0, 14.0, 10, 10.0, "outward") == (9, 9)
    assert moments_to_clips([], [], 10, 10.0)[0].shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([float("nan")], [1.0], 4, 4.0), "finite"),
        (([0.0], [1.0], 0, 4.0), "at least one clip"),
        (([0.0], [1.0], 4, 0.0), "positive"),
        (([0.0], [1.0], 4, 4.0, "up"), "rounding must be"),
        (([[0.0]], [[1.0]], 4, 4.0), r"\(N,\)"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        moments_to_clips(*arguments)
    for bad in ((-1, 2), (3, 2), (0, 4)):
        with pytest.raises(ValueError, match="first <= last"):
            clips_to_moment(*bad, 4, 4.0)


def literal_lighthouse(moment, clips, clip_length):
    """The label lighthouse makes while training, as a set of clips."""
    first, last = int(moment[0] / clip_length), max(0, min(int(moment[1] / clip_length), clips) - 1)
    return set(range(min(first, last), last + 1))


@given(problems(), st.sampled_from([0.5, 1.0, 2.0]))
def test_saliency_as_lighthouse_makes_it(problem, clip_length):
    start, end, _, duration = problem
    labels = saliency_from_moments([(start, end)], duration, clip_length=clip_length, rule="lighthouse")
    clips = max(1, int(np.ceil(duration / clip_length - 1e-6)))
    assert {clip for clip, _ in labels} == literal_lighthouse((start, end), clips, clip_length)
    assert all(scores == (1.0, 1.0, 1.0) for _, scores in labels)


def test_saliency_in_proportion_to_overlap():
    labels = saliency_from_moments([(1.0, 4.5), (4.0, 5.0)], 9.0, clip_length=2.0, rule="overlap", annotators=1)
    assert labels == ((0, (2.0,)), (1, (4.0,)), (2, (2.0,)))
    # the last clip lasts one second: covering it is covering all of it
    assert saliency_from_moments([(8.0, 9.0)], 9.0, rule="overlap", annotators=1) == ((4, (4.0,)),)


@given(problems())
def test_saliency_inside_covers_the_moment(problem):
    start, end, _, duration = problem
    assume(start < duration)
    inside = {c for c, _ in saliency_from_moments([(start, end)], duration, rule="inside", rounding="outward")}
    touched = {c for c, _ in saliency_from_moments([(start, end)], duration, rule="overlap")}
    assert touched <= inside


def test_saliency_arguments():
    for arguments in ({"clip_length": 0.0}, {"annotators": 0}, {"rule": "most"}):
        with pytest.raises(ValueError):
            saliency_from_moments([(0.0, 1.0)], 10.0, **arguments)


@pytest.mark.parametrize(
    ("duration", "clips", "clip_length", "max_clips", "rate"),
    [
        (90.0, 90, 2.0, 100, "1"),
        (126.0, 75, 2.0, 100, "1.68"),
        (30.0, 60, 1.0, 100, "0.5"),
        (300.0, 75, 2.0, 100, "4"),
        (90.0, 75, 2.0, 75, "1.2"),
        (300.0, 75, 2.0, 75, None),  # cut
        (150.0, 75, 2.0, 75, None),
        (30.96, 14, 2.0, 75, None),  # extractors differ by a clip or two
        (30.96, 17, 2.0, 75, None),
        (300.0, 140, 2.0, 200, None),
    ],
)
def test_clips_that_do_not_last_as_long_as_is_said(duration, clips, clip_length, max_clips, rate):
    problem = clip_length_problem({"v": (duration, clips)}, clip_length, max_clips)
    assert (problem is None) == (rate is None)
    if problem is not None:
        assert f"lasts {duration:g} s and has {clips} clips" in problem.what
        assert problem.fix.startswith(f"--clip-length {rate} if all clips last that long")


@pytest.mark.parametrize(
    ("videos", "clip_length", "max_clips", "rate"),
    [
        ([(150.0, 69)] * 100, 2.0, 75, "2.17"),
        ([(150.0, 81)] * 100, 2.0, 200, "1.85"),
        ([(300.0, 138)] * 9, 2.0, 200, None),  # too few to tell
        ([(150.0, 73)] * 100, 2.0, 75, None),  # two clips short
        ([(30.96, 14)] * 100, 2.0, 75, None),
        ([(150.0, 75)] * 51 + [(150.0, 69)] * 49, 2.0, 200, None),  # some only
        ([(162.0, 75)] * 100, 2.0, 75, None),  # cut
        ([(162.0, 75)] * 90 + [(150.0, 69)] * 10, 2.0, 75, "2.17"),  # by those that are not
        ([(30.53, 30)] * 100, 1.0, None, None),
    ],
)
def test_clips_that_are_steadily_a_little_longer_or_shorter(videos, clip_length, max_clips, rate):
    problem = clip_length_problem({f"v{i}": each for i, each in enumerate(videos)}, clip_length, max_clips)
    assert (problem is None) == (rate is None)
    if problem is not None:
        assert "by the median of" in problem.what and problem.fix.startswith(f"--clip-length {rate} if all clips")
