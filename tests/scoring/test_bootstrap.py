"""Intervals by drawing videos: what they must be whatever the data, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from hero_plugin.integrations.scoring.intervals import FEWEST_VIDEOS, Bootstrap
from hero_plugin.integrations.scoring.metrics import SCORES, query_scores, scores_of

SHARES = st.floats(0, 1, width=32)


@st.composite
def cases(draw):
    """Videos of queries, and overlaps of two models of one to three trainings, (S, Q) each."""
    videos = draw(st.lists(st.integers(0, 8), min_size=1, max_size=30))
    shape = (draw(st.integers(1, 3)), len(videos))
    return videos, draw(arrays(np.float64, shape, elements=SHARES)), draw(arrays(np.float64, shape, elements=SHARES))


@given(cases(), st.floats(0, 100, width=32))
@settings(max_examples=40, deadline=None)
def test_a_constant_has_no_width(case, constant):
    videos, values, _ = case
    bootstrap = Bootstrap(videos, number=40)
    estimate = bootstrap.mean(np.full_like(values, constant))
    assert estimate.value == pytest.approx(constant)
    low, high = estimate.interval()
    if bootstrap.videos() < FEWEST_VIDEOS:
        assert np.isnan(low) and np.isnan(high)
    else:
        assert [low, high] == pytest.approx([constant, constant])


@given(cases())
@settings(max_examples=40, deadline=None)
def test_the_value_is_the_mean_over_trainings_of_the_usual_scores(case):
    videos, ious, _ = case
    estimate = Bootstrap(videos, number=2).mean(query_scores(ious))
    usual = [scores_of(row) for row in ious]
    assert estimate.value.tolist() == pytest.approx([np.mean([each[name] for each in usual]) for name in SCORES])


def test_trainings_of_other_seeds_are_not_paired():
    bootstrap = Bootstrap(range(6), number=10)
    first, second, same = (bootstrap.mean(np.ones((2, 6)), seeds=seeds) for seeds in ((0, 1), (2, 3), (0, 1)))
    assert (first - second).trainings is None and (first - same).trainings.tolist() == [0, 0]


@given(cases())
@settings(max_examples=40, deadline=None)
def test_differences_are_antisymmetric(case):
    videos, a, b = case
    bootstrap = Bootstrap(videos, number=40)
    first, second = bootstrap.mean(a), bootstrap.mean(b)
    there, back = first - second, second - first
    np.testing.assert_allclose(there.value, -back.value)
    np.testing.assert_allclose(there.interval()[0], -back.interval()[1], atol=1e-12)
    same = (first - bootstrap.mean(a)).draws
    assert np.all((same == 0) | np.isnan(same))


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_a_group_is_scored_as_if_the_others_were_not_there(case, random):
    videos, ious, _ = case
    where = np.array([random.random() < 0.5 for _ in videos])
    estimate = Bootstrap(videos, number=2).mean(np.where(where, ious, np.nan), where)
    expected = ious[:, where].mean() if where.any() else np.nan
    np.testing.assert_allclose(estimate.value, expected)


def simulated(draw, videos=40, queries=3, trainings=1, spread=(1.0, 0.0, 0.5)):
    """(videos of queries, values (S, Q)) with true mean 0: effects of videos, of trainings, and of neither."""
    of_video, of_training, of_neither = spread
    rows = np.repeat(np.arange(videos), queries)
    values = of_video * draw.normal(size=videos)[rows] + of_training * draw.normal(size=(trainings, 1))
    return rows, values + of_neither * draw.normal(size=(trainings, len(rows)))


def coverage(repeats, **simulation):
    draw, covered = np.random.default_rng(5), 0
    for repeat in range(repeats):
        rows, values = simulated(draw, **simulation)
        low, high = Bootstrap(rows, number=400, seed=repeat).mean(values).interval()
        covered += low <= 0 <= high
    return covered / repeats


def test_intervals_hold_the_truth_as_often_as_they_say():
    assert coverage(300) == pytest.approx(0.95, abs=0.035)


@pytest.mark.parametrize("trainings", [2, 3, 10])
@pytest.mark.parametrize("of_training", [0.1, 1.0])
def test_trainings_are_covered_however_few(trainings, of_training):
    assert coverage(120, trainings=trainings, spread=(0.5, of_training, 0.3)) >= 0.9


def test_drawing_single_queries_would_be_too_sure():
    """Why videos are drawn: with single queries as clusters, the same data give intervals that often miss."""
    draw, covered = np.random.default_rng(5), 0
    for repeat in range(150):
        rows, values = simulated(draw)
        low, high = Bootstrap(np.arange(len(rows)), number=400, seed=repeat).mean(values).interval()
        covered += low <= 0 <= high
    assert covered / 150 < 0.85


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_what_only_trainings_decide_has_the_interval_of_the_t_test(trainings):
    found = np.arange(trainings) ** 2.0
    low, high = Bootstrap(range(10), number=100_000).mean(found[:, None] * np.ones((1, 10))).interval()
    error = found.std(ddof=1) / np.sqrt(trainings)
    expected = stats.t(trainings - 1, found.mean(), error).interval(0.95)
    assert [low, high] == pytest.approx(expected, rel=0.08)


def test_models_of_the_same_seeds_are_paired():
    """An effect of the seed that both models have cancels; with other seeds it does not."""
    draw = np.random.default_rng(0)
    seed_effect, query_effect = draw.normal(size=(4, 1)), draw.normal(size=30)
    bootstrap = Bootstrap(range(30), number=300)
    base = bootstrap.mean(seed_effect + query_effect, seeds=(0, 1, 2, 3))
    better = bootstrap.mean(seed_effect + query_effect + 1, seeds=(0, 1, 2, 3))
    other = bootstrap.mean(seed_effect + query_effect + 1, seeds=(4, 5, 6, 7))
    assert (better - base).interval() == (pytest.approx(1), pytest.approx(1))
    low, high = (other - base).interval()
    assert high - low > 0.3


def test_trainings_can_be_left_as_they_are():
    values = np.arange(3)[:, None] * np.ones((1, 10))
    low, high = Bootstrap(range(10), number=50, trainings=False).mean(values).interval()
    assert [low, high] == pytest.approx([1, 1])


def test_the_same_seed_gives_the_same_draws():
    values = np.random.default_rng(0).normal(size=(1, 20))
    one, two, three = (Bootstrap(range(20), number=50, seed=seed).mean(values).draws for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)


def test_a_ratio_has_its_own_weights():
    values, weights = np.ones((2, 6, 2)), np.zeros((2, 6, 2))
    values[:, :3] = 0
    weights[..., 0] = 1
    weights[:, 3, 1] = 1
    estimate = Bootstrap(range(6), number=50).mean(values, weights)
    assert estimate.value.tolist() == [0.5, 1.0]
    low, high = estimate.interval()
    assert low[0] < 0.5 < high[0]
    assert np.isnan(low[1])  # one video: nothing to draw from


def test_a_training_without_any_weight_has_no_figure():
    weights = np.array([[1.0] * 6, [0.0] * 6])
    assert np.isnan(Bootstrap(range(6), number=10).mean(np.ones((2, 6)), weights).value)


@pytest.mark.parametrize(
    ("values", "weights", "seeds", "message"),
    [
        (np.ones(3), None, None, r"values must be \(S, 3\) or \(S, 3, K\), got \(3,\)"),
        (np.ones((1, 4)), None, None, r"got \(1, 4\)"),
        (np.ones((1, 3)), np.ones(2), None, r"weights must be \(3,\), \(1, 3\) or \(1, 3, 1\), got \(2,\)"),
        (np.ones((1, 3)), None, (0, 1), "seeds must name the 1 trainings, got 2"),
    ],
)
def test_shapes_that_do_not_fit_are_said(values, weights, seeds, message):
    with pytest.raises(ValueError, match=message):
        Bootstrap("abc", number=2).mean(values, weights, seeds=seeds)


def test_no_queries_and_no_draws_are_said():
    with pytest.raises(ValueError, match="no queries"):
        Bootstrap([])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Bootstrap(["a"], number=0)
