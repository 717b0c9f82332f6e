"""``hero-plugin eval --submission FILE``: QVHighlights' official figures of what any model predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from hero_plugin.highlights import LEVELS
from hero_plugin.integrations.annotations import ReadReport, load_durations, read_annotations
from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.annotations.qvhighlights import qid
from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.drift.report import Draws
from hero_plugin.integrations.drift.show import show_drift
from hero_plugin.integrations.drift.submitted import submitted_models
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_json
from hero_plugin.integrations.strict_json import nan_to_null
from hero_plugin.integrations.submission_checks import Submission, read_submission
from hero_plugin.integrations.submissions import SALIENCY, WINDOWS
from hero_plugin.qvhighlights import qvhighlights_scores
from hero_plugin.retrieval import LENGTHS, queries_by_length

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
    """Predictions in QVHighlights' form, a JSON object a line. With --train, several are compared with the first."""
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

    Returns the figures, in the official layout; of several submissions, by file under "submissions". Either way with
    "drift" beside them where there are training annotations.
    """
    screen = screen or Screen()
    _check(config)
    draws = Draws(config.resamples, config.seed) if config.train and config.resamples else None
    durations = None if config.durations is None else load_durations(config.durations)
    report = ReadReport()
    records = read_annotations(
        config.annotations, durations=durations, on_outside="keep", on_broken=config.on_broken, report=report
    )
    left_out = set(report.ids) - {qid(record) for record in records}
    if report.dropped:
        screen.say(
            f"note: left out {len(report.dropped)} broken queries of {config.annotations} (--on-broken drop), "
            f"the first: {report.dropped[0].where}: {report.dropped[0].what}"
        )
    found, scored = {}, {}
    for path in config.submission:
        found[path] = read_submission(
            path, records, partial=config.partial, truth=str(config.annotations), left_out=left_out
        )
        scored[path] = qvhighlights_scores(found[path].lines, found[path].annotations)
        if len(config.submission) > 1:
            screen.say(f"\n{path}")
        for table in tables(scored[path], found[path]):
            screen.show(table)
        for note in found[path].notes:
            screen.say(f"note: {note}")
    several = {"submissions": {str(path): scores for path, scores in scored.items()}}
    result: dict[str, Any] = several if len(scored) > 1 else dict(*scored.values())
    if draws is not None:
        models = submitted_models(found, records, config.train, config.tokenizer)
        result["drift"] = show_drift(models, draws, screen, config.figures)
    if config.json is not None:
        write_json(config.json, nan_to_null(result), indent=4)
        screen.say(f"figures: {config.json}")
    if config.figure is not None:
        from hero_plugin.integrations.figures.official import draw_official

        screen.say(f"drawn: {draw_official(scored[config.submission[0]], config.figure)}")
    return result


def _check(config: SubmissionConfig) -> None:
    """Raise ``UserError`` where flags do not go together."""
    if len(config.submission) > 1 and not config.train:
        raise UserError("several submissions are compared by drift: add --train, the annotations they were trained on")
    if len(config.submission) > 1 and config.figure is not None:
        raise UserError(f"--figure draws one submission, got {len(config.submission)}; --figures compares them")
    if config.figures is not None and not config.train:
        raise UserError("--figures draws the scores by drift: add --train, the annotations the model was trained on")
    if config.figures is not None and not config.resamples:
        raise UserError("--figures shows intervals, which --resamples 0 leaves out")


def tables(scores: Mapping[str, Mapping[str, Any]], submission: Submission) -> list[Table]:
    """Moment retrieval by length of the annotated windows, and highlights by what counts as one; those there are."""
    made = []
    if WINDOWS in submission.lines[0]:
        queries = queries_by_length([row["relevant_windows"] for row in submission.annotations])
        rows = [(_range(name), queries[name], _figures(scores[name], RETRIEVAL)) for name in LENGTHS]
        made.append(_table("moment retrieval", [column for column, *_ in RETRIEVAL], rows))
    if SALIENCY in submission.lines[0]:
        columns = [("mAP", "HL-mAP"), ("HIT@1", "HL-Hit1")]
        rows = [
            (f"{name} (score {level} or more)", len(submission.lines), _figures(scores[f"HL-min-{name}"], columns))
            for name, level in LEVELS.items()
        ]
        made.append(_table("highlights", [column for column, _ in columns], rows))
    return made


def _figures(part: Mapping[str, Any], columns: Sequence[tuple[str, ...]]) -> list[str]:
    cells = []
    for _, *keys in columns:
        value: Any = part
        for key in keys:
            value = value[key]
        cells.append("-" if math.isnan(value) else f"{value:.2f}")
    return cells


def _range(name: str) -> str:
    shortest, longest = LENGTHS[name]
    return name if math.isinf(longest) else f"{name} ({shortest:g} to {longest:g} s]"


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, int, list[str]]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("", no_wrap=True)
    for column in ("queries", *columns):
        table.add_column(column, justify="right", no_wrap=True)
    for name, queries, cells in rows:
        table.add_row(name, str(queries), *cells)
    return table
