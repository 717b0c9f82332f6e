"""Every figure equals the official script's, run from its clone, and those published with it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hero_plugin.integrations import cli
from hero_plugin.integrations.scoring import qvhighlights
from hero_plugin.integrations.scoring.qvhighlights import qvhighlights_scores
from hero_plugin.integrations.tools.bench import upstream as bench_eval
from hero_plugin.integrations.tools.bench.upstream import official_evaluation
from tests.resources import upstream


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def sample():
    clone = upstream("moment_detr")
    return (
        lines(clone / "standalone_eval" / "sample_val_preds.jsonl"),
        lines(clone / "data" / "highlight_val_release.jsonl"),
    )


@pytest.fixture(scope="module")
def official():
    clone = upstream("moment_detr")
    pytest.importorskip("sklearn", reason="the official script needs scikit-learn")
    with official_evaluation(clone, workers=1) as evaluate:
        yield evaluate


@pytest.mark.upstream
def test_published_figures_of_the_whole_validation_set(sample):
    text = (upstream("moment_detr") / "standalone_eval" / "sample_val_preds_metrics_raw.json").read_text()
    assert json.dumps(qvhighlights_scores(*sample), indent=4) == text.rstrip()


@pytest.mark.upstream
def test_the_sample_by_the_official_script(sample, official):
    submission, annotations = (rows[::25] for rows in sample)
    kept = {line["qid"] for line in submission}
    annotations = [row for row in sample[1] if row["qid"] in kept]
    assert json.dumps(qvhighlights_scores(submission, annotations)) == json.dumps(official(submission, annotations))


# Coarse grids, so that times, scores and saliency tie all the time; text would be drawn, numbers of both types are.
times = st.integers(0, 30).map(lambda tick: tick * 2) | st.integers(0, 60).map(float)
grid = st.sampled_from([0, 0.5, 1.0, -1.0, 2])
annotated = st.tuples(times, times).map(sorted)
window = st.tuples(times, times, grid).map(list)  # some without length, some that end before they start


@st.composite
def queries(draw, qid):
    duration = draw(st.integers(2, 41))
    clips = draw(st.lists(st.integers(0, duration // 2 - 1), min_size=1, max_size=8, unique=True))
    scores = st.lists(st.integers(0, 4), min_size=3, max_size=3)
    truth = draw(st.lists(annotated, min_size=1, max_size=6))
    windows = draw(st.lists(window | st.sampled_from(truth).map(lambda pair: [*pair, 0.5]), min_size=1, max_size=13))
    line = {"qid": qid, "pred_relevant_windows": windows}
    line["pred_saliency_scores"] = draw(st.lists(grid, min_size=1, max_size=24))
    row = {"qid": qid, "duration": duration, "relevant_windows": truth, "relevant_clip_ids": clips}
    return line, {**row, "saliency_scores": [draw(scores) for _ in clips]}


@st.composite
def submissions(draw):
    drawn = [draw(queries(qid)) for qid in range(draw(st.integers(1, 3)))]
    drawn[0][1]["relevant_windows"].extend([[0, 6], [4, 24], [2, 62]])  # the script stops at an empty length range
    rows = draw(st.permutations([row for _, row in drawn]))
    return [line for line, _ in drawn], rows


@pytest.mark.slow
@pytest.mark.upstream
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
@given(submissions())
def test_any_submission_is_scored_as_the_official_script_does(official, drawn):
    submission, annotations = drawn
    assert json.dumps(qvhighlights_scores(submission, annotations)) == json.dumps(official(submission, annotations))


@pytest.mark.upstream
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
@pytest.mark.parametrize("seed", range(3))
def test_many_annotated_windows_that_overlap_alike(official, seed):
    """More than sixteen: there numpy's sort, and so the choice among equals, is another one."""
    draw = np.random.default_rng(seed)
    submission, annotations = [], []
    for qid in range(30):
        truth = np.sort(draw.integers(0, 12, (draw.integers(1, 45), 2)) * 10.0, axis=1)
        windows = np.column_stack([np.sort(draw.integers(0, 12, (12, 2)) * 10.0, axis=1), draw.integers(0, 4, 12)])
        submission.append({"qid": qid, "pred_relevant_windows": windows.tolist()})
        annotations.append({"qid": qid, "relevant_windows": truth.tolist()})
    assert json.dumps(qvhighlights_scores(submission, annotations)) == json.dumps(official(submission, annotations))


@pytest.mark.upstream
def test_long_videos_whose_clips_tie(official):
    """More than eight highlights: there numpy adds in another order."""
    draw = np.random.default_rng(0)
    submission, annotations = [], []
    for qid in range(20):
        clips = int(draw.integers(20, 300))
        scores = draw.integers(0, 5, (clips, 3)).tolist()
        saliency = draw.integers(0, 50, clips + draw.integers(-2, 3)) / 7
        submission.append({"qid": qid, "pred_saliency_scores": saliency.tolist()})
        row = {"qid": qid, "duration": 2 * clips + 1, "relevant_clip_ids": list(range(clips))}
        annotations.append({**row, "saliency_scores": scores})
    assert json.dumps(qvhighlights_scores(submission, annotations)) == json.dumps(official(submission, annotations))


@pytest.mark.upstream
def test_not_even_the_last_bit_differs_before_rounding(official, monkeypatch):
    monkeypatch.setattr(qvhighlights, "percent", lambda fraction: fraction)
    script = sys.modules["standalone_eval.utils"]
    draw = np.random.default_rng(0)
    for _ in range(60):
        truth = (np.arange(12)[:, None] + np.array([0.0, 1.0])) * 5
        windows = np.column_stack([truth + draw.uniform(-0.8, 0.8, truth.shape), draw.random(12)])[draw.permutation(12)]
        names = ("t-start", "t-end", "score")
        items = [[{"video-id": 0, **dict(zip(names, row, strict=False))} for row in a] for a in (truth, windows[:10])]
        expected = script.compute_average_precision_detection(*items, qvhighlights.OVERLAPS)
        figures = qvhighlights.retrieval_scores([windows], [truth])["full"]["MR-mAP"]
        assert [figures[str(overlap)] for overlap in qvhighlights.OVERLAPS] == expected.tolist()

        scores, labels = draw.integers(0, 60, 90) / 7, draw.integers(0, 2, 90)
        (figure, *_) = qvhighlights.highlight_scores([scores], [labels[:, None] * np.full(3, 2.0)]).values()
        assert figure["HL-mAP"] == np.mean([script.get_ap(labels, scores)] * 3)


@pytest.mark.upstream
def test_the_benchmark_compares_every_figure(tmp_path, sample, capsys, monkeypatch):
    pytest.importorskip("sklearn", reason="the official script needs scikit-learn")
    monkeypatch.setattr(bench_eval, "OFFICIAL_WORKERS", 2)
    kept = {row["qid"] for row in sample[1][:20]}
    for name, rows in zip(("sub", "truth"), sample, strict=True):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows if row["qid"] in kept))
    files = ["--submission", str(tmp_path / "sub"), "--annotations", str(tmp_path / "truth")]
    argv = ["--upstream", str(upstream("moment_detr")), *files, "--rounds", "1", "--json", str(tmp_path / "o")]
    assert cli.main(["bench", "eval", *argv]) == 0
    assert "largest difference of 104 figures: 0" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "o").read_text())
    assert numbers["queries"] == 20
    assert list(numbers["seconds"]) == ["official, 2 processes", "official, 1 process", "hero-plugin"]


def test_a_folder_that_is_no_clone_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no clone of Moment-DETR"), official_evaluation(tmp_path):
        pass
