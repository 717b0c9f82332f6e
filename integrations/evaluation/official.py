"""Evaluation of submissions by QVHighlights' official figures: ``hero-plugin eval --submission FILE``."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from hero_plugin.integrations.data.annotations import read_annotations, read_sentences
from hero_plugin.integrations.data.checks import Durations, OnBroken, ReadReport
from hero_plugin.integrations.data.formats import qid
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import is_word, open_tokenizer
from hero_plugin.integrations.evaluation.robustness import Answers, Draws, Model, answers_of
from hero_plugin.integrations.evaluation.robustness_report import check_outputs, show_robustness
from hero_plugin.integrations.scoring.open_vocabulary import training_vocabulary, unseen_words
from hero_plugin.integrations.scoring.qvhighlights import (
    LENGTHS,
    LEVELS,
    OVERLAPS,
    queries_by_length,
    qvhighlights_scores,
)
from hero_plugin.integrations.scoring.submissions import SALIENCY, WINDOWS, Submission, read_submission
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import nan_to_null, write_json
from hero_plugin.integrations.support.plotting import CYCLE, HERO, MUTED, SETTINGS, new_figure, save_figure
from hero_plugin.integrations.support.tables import Cell, Row, Table

RETRIEVAL = (
    ("mAP@0.5", "MR-mAP", "0.5"),
    ("mAP@0.75", "MR-mAP", "0.75"),
    ("mAP", "MR-mAP", "average"),
    ("R1@0.5", "MR-R1", "0.5"),
    ("R1@0.7", "MR-R1", "0.7"),
)
"""Columns of the table, and where their figures are."""


@dataclass
class SubmissionConfig:
    """Score what any model predicted, by the official evaluation of QVHighlights and by drift."""

    submission: tuple[Path, ...]
    """Predictions in QVHighlights' form, one JSON object per line. Several are compared with the first."""
    annotations: Path
    """QVHighlights' JSONL, or any format that `hero-plugin data` reads. Without saliency, moments alone count."""
    partial: bool = False
    """Score the queries that both files have; otherwise both must have the same."""
    durations: Path | None = None
    """Lengths of the videos, for annotations that do not hold them."""
    on_broken: OnBroken = "error"
    """Annotations that cannot be used: list them and stop, or leave their queries out, of the submission, too."""
    json: Path | None = None
    """Write all figures here, in the official script's layout."""
    table: tuple[Path, ...] = ()
    """Write R1 and mIoU of the submissions here: .tex for LaTeX, .csv, .md or .json, by the ending."""
    figure: Path | None = None
    """Draw the figures here, as a PNG."""
    train: tuple[Path, ...] = ()
    """Training annotations, any format: also give the scores by words that these never had, with intervals."""
    tokenizer: str = "words"
    """What a word is, as in `hero-plugin vocab stats`."""
    figures: Path | None = None
    """Draw the scores by drift as PNGs into this folder."""
    resamples: int = 2000
    """Draws behind the intervals; 0: no figures by drift."""
    seed: int = 0
    """Of the draws."""


def main(config: SubmissionConfig, screen: Screen | None = None) -> dict[str, Any]:
    """Score, print and write.

    Returns:
        The figures, in the official layout; of several submissions, by file under "submissions". Either way with
        "drift" beside them where there are training annotations.
    """
    screen = screen or Screen()
    _check(config)
    compared = config.train or config.table or len(config.submission) > 1
    draws = Draws(config.resamples, config.seed) if compared and config.resamples else None
    records, left_out = read_answered(config.annotations, config.durations, config.on_broken, screen)
    found, scored = {}, {}
    for path in config.submission:
        found[path] = read_submission(
            path, records, partial=config.partial, truth=str(config.annotations), left_out=left_out
        )
        scored[path] = qvhighlights_scores(found[path].lines, found[path].annotations)
        if len(config.submission) > 1:
            screen.say(f"\n{path}")
        for table in tables(scored[path], found[path]):
            screen.show(table.terminal())
        for note in found[path].notes:
            screen.say(f"note: {note}")
    several = {"submissions": {str(path): scores for path, scores in scored.items()}}
    result: dict[str, Any] = several if len(scored) > 1 else dict(*scored.values())
    if draws is not None:
        models = submitted_models(found, records, config.train, config.tokenizer)
        result["drift"] = show_robustness(models, draws, screen, config.figures, config.table)
    if config.json is not None:
        write_json(config.json, nan_to_null(result), indent=4)
        screen.say(f"all scores: {config.json}")
    if config.figure is not None:
        screen.say(f"drawn: {draw_official(scored[config.submission[0]], config.figure)}")
    return result


def _check(config: SubmissionConfig) -> None:
    """Raise ``UserError`` where flags do not go together."""
    files = Counter(path.resolve() for path in config.submission)
    if repeated := [str(path) for path, count in files.items() if count > 1]:
        raise UserError(f"--submission: named twice: {', '.join(repeated)}; give each submission once")
    if len(config.submission) > 1 and config.figure is not None:
        raise UserError(f"--figure draws one submission, got {len(config.submission)}; --figures compares them")
    if config.figures is not None and not config.train:
        raise UserError("--figures draws the scores by drift: add --train, the annotations the model was trained on")
    check_outputs(config)


def read_answered(
    path: Path, durations: Durations | None, on_broken: OnBroken, screen: Screen
) -> tuple[list[Record], set[Any]]:
    """Read the annotations that submissions answer, as they stand; say and return the ids of what is left out."""
    report = ReadReport()
    records = read_annotations(path, durations=durations, on_outside="keep", on_broken=on_broken, report=report)
    if report.dropped:
        screen.say(
            f"note: left out {len(report.dropped)} broken queries of {path} (--on-broken drop), "
            f"the first: {report.dropped[0].where}: {report.dropped[0].what}"
        )
    if report.lost_windows:
        number, first = len(report.lost_windows), report.lost_windows[0]
        screen.say(f"note: left out {number} windows of queries of {path} that keep others, the first: {first}")
    return records, set(report.ids) - {qid(record) for record in records}


def submitted_models(
    submissions: Mapping[Path, Submission], records: Sequence[Record], train: Sequence[Path], tokenizer: str
) -> list[Model]:
    """Return one model per submission; see ``submitted_answers`` and ``unseen_by``."""
    unseen = unseen_by(train, tokenizer)
    stems = Counter(path.stem for path in submissions)
    models = []
    for path, submission in submissions.items():
        answers = submitted_answers(path, submission, records, unseen)
        name = path.stem if stems[path.stem] == 1 else str(path)
        models.append(Model(name, (str(path),), answers={"submission": [answers]}))
    return models


def unseen_by(train: Sequence[Path], tokenizer: str) -> Callable[[Record], Sequence[str]] | None:
    """Return a function that gives the words of a query that the annotations ``train`` never had; None for none."""
    split = open_tokenizer(tokenizer)
    if not train:
        return None
    vocabulary = training_vocabulary(split(record.sentence) for file in train for record in read_sentences(file))
    return lambda record: unseen_words(filter(is_word, split(record.sentence)), vocabulary)


def submitted_answers(
    path: Path, submission: Submission, records: Sequence[Record], unseen: Callable[[Record], Sequence[str]] | None
) -> Answers:
    """Return the first window of each query as its answer; ``UserError`` for a submission without windows."""
    if WINDOWS not in submission.lines[0]:
        raise UserError(f"{path}: no {WINDOWS}, and models are compared by where they find the moments")
    windows = {line["qid"]: line[WINDOWS][0][:2] for line in submission.lines}
    answered = [record for record in records if qid(record) in windows]
    return answers_of(answered, np.array([windows[qid(record)] for record in answered], dtype=np.float64), unseen)


def tables(scores: Mapping[str, Mapping[str, Any]], submission: Submission) -> list[Table]:
    """Return moment retrieval by length of the annotated windows, and highlights by level: those that there are."""
    made = []
    if WINDOWS in submission.lines[0]:
        counts = queries_by_length([row["relevant_windows"] for row in submission.annotations])
        rows = [
            (
                name if math.isinf(longest) else f"{name} ({shortest:g} to {longest:g} s]",
                counts[name],
                *(scores[name][kind][overlap] for _, kind, overlap in RETRIEVAL),
            )
            for name, (shortest, longest) in LENGTHS.items()
        ]
        made.append(_table("moment retrieval", [column for column, *_ in RETRIEVAL], rows))
    if SALIENCY in submission.lines[0]:
        parts = {f"{name} (score {level} or more)": scores[f"HL-min-{name}"] for name, level in LEVELS.items()}
        rows = [(name, len(submission.lines), part["HL-mAP"], part["HL-Hit1"]) for name, part in parts.items()]
        made.append(_table("highlights", ("mAP", "HIT@1"), rows))
    return made


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Table:
    made = [Row((name, str(queries)), tuple(map(Cell.of, figures))) for name, queries, *figures in rows]
    return Table(("", "queries"), tuple(columns), made, title, counts=("queries",))


def draw_official(scores: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """Draw precision and recall by required overlap, precision and hit rate by level; those that there are."""
    panels = [draw for name, draw in (("full", _retrieval), ("HL-min-Fair", _highlights)) if name in scores]
    with mpl.rc_context(SETTINGS):
        figure, axes = new_figure(5.2 * len(panels), 3.8, 1, len(panels))
        for draw, axis in zip(panels, axes[0], strict=True):
            draw(axis, scores)
            axis.set_ylabel("percent")
            axis.set_ylim(bottom=0)
        return save_figure(figure, path)


def _retrieval(axis: Any, scores: Mapping[str, Mapping[str, Any]]) -> None:
    for name, color in zip(reversed(LENGTHS), CYCLE, strict=False):
        means = [scores[name]["MR-mAP"][str(overlap)] for overlap in OVERLAPS]
        axis.plot(OVERLAPS, means, color=color, marker="o", markersize=3, label=f"mAP, {name}")
    recalls = [scores["full"]["MR-R1"][str(overlap)] for overlap in OVERLAPS]
    axis.plot(OVERLAPS, recalls, color=HERO, linestyle=":", label="R1, full")
    axis.set(title="Moment retrieval", xlabel="required overlap")
    axis.legend()


def _highlights(axis: Any, scores: Mapping[str, Mapping[str, Any]]) -> None:
    for shift, (key, label, color) in ((-0.2, ("HL-mAP", "mAP", HERO)), (0.2, ("HL-Hit1", "HIT@1", MUTED))):
        values = [scores[f"HL-min-{name}"][key] for name in LEVELS]
        bars = axis.bar([place + shift for place in range(len(LEVELS))], values, width=0.38, color=color, label=label)
        axis.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axis.set_xticks(range(len(LEVELS)), [f"{name}\n(score {level}+)" for name, level in LEVELS.items()])
    axis.grid(axis="x", visible=False)
    axis.margins(y=0.12)
    axis.set_title("Highlights")
    axis.legend(loc="upper right")
