"""What is answered: the same as ``hero-plugin eval``, for every base, however the queries are batched and cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.formats import qid
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.scoring.submissions import SALIENCY, WINDOWS, read_submission
from hero_plugin.integrations.tools.predict import predict
from hero_plugin.integrations.tools.predict.merge import report_text
from hero_plugin.integrations.tools.predict.model import PredictConfig
from hero_plugin.integrations.tools.predict.predict import main
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.task import Grounded
from hero_plugin.integrations.training.train import main as train
from tests.screen import QUIET
from tests.tools.predict.conftest import rows
from tests.training.files import write_published

pytestmark = pytest.mark.slow


ROUNDING = 1e-5
"""Of scores and of seconds over the video's length; `pytest -s` prints the largest difference."""


def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What lines are made from, before it is rounded, by query."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    usual = predict.submission_line

    def keep(record, windows, scores, saliency=None):
        found[record.query_id] = (windows / record.duration, scores)
        return usual(record, windows, scores, saliency)

    monkeypatch.setattr(predict, "submission_line", keep)
    return found


def evaluated(monkeypatch: pytest.MonkeyPatch, run: Path, annotations: Path, batch_size: int, bridge: bool) -> Grounded:
    """What ``hero-plugin eval`` makes its lines from."""
    found: list[Grounded] = []

    def keep(*given, **options):
        found.append(predict_set(*given, **options))
        return found[-1]

    monkeypatch.setattr("hero_plugin.integrations.training.load_run.predict_set", keep)
    flags = {"device": "cpu", "resamples": 0, "batch_size": batch_size, "bridge": bridge}
    evaluate(EvalConfig(run=(run,), annotations=(str(annotations),), **flags), QUIET)
    return found[0]


@pytest.mark.parametrize(
    ("base", "bridge"),
    [("emb", False), ("moment_detr", False), ("qd_detr", False), ("tr_detr", False), ("emb", True), ("qd_detr", True)],
)
def test_answers_are_those_of_eval(base, bridge, trained, run_of, tmp_path, monkeypatch):
    run = run_of(base)
    annotations = trained.files.root / ("unseen.json" if bridge else "seen.json")
    records = read_annotations(annotations)
    theirs = evaluated(monkeypatch, run, annotations, 1 if BASES[base].reads_video_padding else 64, bridge)
    ours = kept(monkeypatch)
    flags = {"device": "cpu", "batch_size": 5, "window": 7, "bridge": bridge}
    report = main(PredictConfig(run=run, queries=annotations, output=tmp_path / "ours", **flags), QUIET)
    assert report["answered"] == len(records) and report["dropped"] == 0
    lines = rows(tmp_path / "ours" / "predictions.jsonl")
    assert [line["qid"] for line in lines] == [qid(record) for record in records]
    largest = 0.0
    for row, record in enumerate(records):
        windows, scores = ours[record.query_id]
        largest = max(largest, np.abs(scores - theirs.scores[row]).max())
        largest = max(largest, np.abs(windows - theirs.moments[row] / record.duration).max())
        np.testing.assert_allclose(scores, theirs.scores[row], atol=ROUNDING)
        np.testing.assert_allclose(windows, theirs.moments[row] / record.duration, atol=ROUNDING)
        if theirs.saliency:
            np.testing.assert_allclose(lines[row][SALIENCY], theirs.saliency[row], atol=1e-4)
    print(f"{base}: largest difference from eval {largest:.1e}")


@pytest.mark.parametrize("bridge", [False, True])
def test_queries_with_features_of_their_own(bridge, tmp_path):
    files = write_published(tmp_path / "data")
    run = tmp_path / "run"
    train(config_from(files.settings("qd_detr", output=str(run), epochs=1), "test"), QUIET)
    queries = files.root / "val.jsonl"
    flags = {"device": "cpu", "resamples": 0, "batch_size": 1, "predictions": tmp_path / "eval.jsonl"}
    evaluate(EvalConfig(run=(run,), annotations=(str(queries),), bridge=bridge, **flags), QUIET)
    ours = {"output": tmp_path / "ours.jsonl", "device": "cpu", "window": 2, "bridge": bridge}
    main(PredictConfig(run=run, queries=queries, **ours), QUIET)
    for ours, theirs in zip(rows(tmp_path / "ours.jsonl"), rows(tmp_path / "eval.jsonl"), strict=True):
        assert (ours["qid"], ours["query"], ours["vid"]) == (theirs["qid"], theirs["query"], theirs["vid"])
        np.testing.assert_allclose(ours[WINDOWS], theirs[WINDOWS], atol=2e-4)
        np.testing.assert_allclose(ours[SALIENCY], theirs[SALIENCY], atol=2e-4)
    assert read_submission(tmp_path / "ours.jsonl", read_annotations(queries)).lines


def in_order(windows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Scores from the best on, then windows with theirs by their start: two that score alike may change places."""
    by_start = np.lexsort((windows[:, 1], windows[:, 0]))
    return np.concatenate([scores, windows[by_start].ravel(), scores[by_start]])


@pytest.mark.parametrize("base", ["emb", "qd_detr", "tr_detr"])
def test_answers_do_not_depend_on_batches(base, trained, run_of, tmp_path, monkeypatch):
    found = []
    for batch_size, window in ((1, 1), (4, 5), (64, 512)):
        ours = kept(monkeypatch)
        trained.predict(tmp_path / f"{window}.jsonl", run=run_of(base), batch_size=batch_size, window=window)
        found.append(np.concatenate([in_order(*ours[query]) for query in sorted(ours)]))
        monkeypatch.undo()
    np.testing.assert_allclose(found[1], found[0], atol=ROUNDING)
    np.testing.assert_allclose(found[2], found[0], atol=ROUNDING)


def test_windows_can_be_limited_and_saliency_left_out(trained, run_of, tmp_path):
    run = run_of("moment_detr")
    trained.predict(tmp_path / "all.jsonl", run=run)
    trained.predict(tmp_path / "two.jsonl", run=run, top_k=2, saliency=False)
    for every, two in zip(rows(tmp_path / "all.jsonl"), rows(tmp_path / "two.jsonl"), strict=True):
        assert two[WINDOWS] == every[WINDOWS][:2] and SALIENCY in every and SALIENCY not in two


def test_saliency_of_clips_that_are_not_of_two_seconds_is_left_out(trained, run_of, tmp_path):
    row = rows(trained.queries)[0]
    clips = len(np.load(trained.files.root / "features" / f"{row['vid']}.npy"))
    for seconds, there in ((2.0, True), (2.5, False)):
        (tmp_path / "one.jsonl").write_text(json.dumps({**row, "duration": clips * seconds}) + "\n")
        trained.predict(tmp_path / f"{seconds}", run=run_of("moment_detr"), queries=tmp_path / "one.jsonl")
        (line,) = rows(tmp_path / f"{seconds}" / "predictions.jsonl")
        assert (SALIENCY in line) is there


@pytest.mark.parametrize("every_video", [False, True])
def test_saliency_is_on_all_lines_or_on_none(trained, run_of, tmp_path, every_video):
    """But for a search, whose answers nobody scores."""
    clips = {path.stem: len(np.load(path)) for path in (trained.files.root / "features").glob("*.npy")}
    lengths = {video: 2 * count for video, count in clips.items()}
    given = {row["vid"]: {**row, "duration": lengths[row["vid"]]} for row in rows(trained.queries)}
    short = next(reversed(given))
    lengths[short] = given[short]["duration"] = lengths[short] + 6  # three clips too few
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given.values()))
    (tmp_path / "lengths.json").write_text(json.dumps(lengths))
    flags = {"queries": tmp_path / "q.jsonl", "durations": tmp_path / "lengths.json", "every_video": every_video}
    report = trained.predict(tmp_path / "out", run=run_of("moment_detr"), window=2, **flags)
    scored = {line["vid"] for line in rows(tmp_path / "out" / "predictions.jsonl") if SALIENCY in line}
    assert scored == (set(lengths) - {short} if every_video else set())
    assert report["unscored"] == (len(given) if every_video else 1)
    assert f"as {short} ({clips[short]} clips, {lengths[short]} s)" in report_text(report)


def test_every_form_of_the_same_queries_gets_the_same_answers(trained, tmp_path, whole):
    """Moments are not read: the text form has none, and the plain one not even a name that QVHighlights has."""
    asked = rows(trained.queries)
    durations = tmp_path / "durations.json"
    durations.write_text(json.dumps({row["vid"]: row["duration"] for row in asked}))
    (tmp_path / "plain.jsonl").write_text(
        "".join(json.dumps({"video": row["vid"], "query": row["query"]}) + "\n\n" for row in asked)
    )
    (tmp_path / "plain.txt").write_text("".join(f"{row['vid']}##{row['query']}\r\n" for row in asked))
    expected = [json.loads(line)[WINDOWS] for line in whole.splitlines()]
    for name in ("plain.jsonl", "plain.txt"):
        report = trained.predict(tmp_path / f"{name}.d", queries=tmp_path / name, durations=durations)
        found = rows(tmp_path / f"{name}.d" / "predictions.jsonl")
        np.testing.assert_allclose([line[WINDOWS] for line in found], expected, atol=2e-3)
        assert report["queries"] == len(asked)
    assert [line["qid"] for line in rows(tmp_path / "plain.jsonl.d" / "predictions.jsonl")][:3] == [0, 2, 4]
    assert found[1]["qid"] == f"{asked[1]['vid']}_1"


def test_a_video_without_a_length_is_as_long_as_its_clips(trained, tmp_path):
    row = rows(trained.queries)[0]
    clips = len(np.load(trained.files.root / "features" / f"{row['vid']}.npy"))
    for name, flags in (("given", {"duration": clips * 1.5}), ("counted", {"duration": None})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**row, **flags}) + "\n")
        trained.predict(tmp_path / name, queries=tmp_path / f"{name}.jsonl", clip_seconds=1.5)
    given, counted = (tmp_path / name / "predictions.jsonl" for name in ("given", "counted"))
    assert given.read_bytes() == counted.read_bytes()


def test_every_video_is_asked_and_ranked(trained, tmp_path):
    sentences = [row["query"] for row in rows(trained.queries)[:3]]
    (tmp_path / "sentences.txt").write_text("\n".join(sentences))
    output = tmp_path / "archive"
    flags = {"queries": tmp_path / "sentences.txt", "every_video": True, "clip_seconds": 2.0, "top_videos": 4}
    report = trained.predict(output, **flags)
    videos = sorted(path.stem for path in (trained.files.root / "features").iterdir())
    lines = rows(output / "predictions.jsonl")
    assert report["queries"] == len(lines) == len(videos) * len(sentences)
    assert [line["qid"] for line in lines] == [f"{number}@{video}" for video in videos for number in range(3)]
    ranked = rows(output / "ranking.jsonl")
    assert [row["query"] for row in ranked] == sentences
    for number, row in enumerate(ranked):
        own = {line["vid"]: line["score"] for line in lines if line["qid"].startswith(f"{number}@")}
        assert [entry["vid"] for entry in row["videos"]] == sorted(own, key=own.get, reverse=True)[:4]
    (tmp_path / "pair.jsonl").write_text(json.dumps({"vid": videos[2], "query": sentences[1]}))
    trained.predict(tmp_path / "pair", queries=tmp_path / "pair.jsonl", clip_seconds=2.0)
    (alone,) = rows(tmp_path / "pair" / "predictions.jsonl")
    (same,) = (line for line in lines if line["qid"] == f"1@{videos[2]}")
    np.testing.assert_allclose(alone[WINDOWS], same[WINDOWS], atol=2e-3)


def test_a_submission_can_be_scored(trained, tmp_path):
    records = read_annotations(trained.files.root / "seen.json")
    numbered = [record.replace(query_id=str(row)) for row, record in enumerate(records)]
    write_annotations(numbered, tmp_path / "seen.jsonl", format="qvhighlights")
    trained.predict(tmp_path / "ours.jsonl", queries=tmp_path / "seen.jsonl")
    found = read_submission(tmp_path / "ours.jsonl", read_annotations(tmp_path / "seen.jsonl"))
    assert len(found.lines) == len(records)
