"""Several annotation files read as one list of queries."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from hero_plugin.integrations.annotations import read_annotations
from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.problems import DataError, Problem
from hero_plugin.integrations.progress_bar import bar
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.words import tokenize


def read_many(files: Sequence[Path], lengths: dict[str, float], on_broken: OnBroken) -> list[Record]:
    """Read several annotation files, in order.

    Args:
        files: Annotation files of any format.
        lengths: Seconds per video, for files that do not hold them.
        on_broken: As in ``read_annotations``.

    Raises:
        DataError: Problems in any of the files, all at once.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    for file in files:
        try:
            with bar(f"reading {file.name}") as progress, warnings.catch_warnings():
                warnings.simplefilter("ignore" if on_broken == "drop" else "default")
                records += read_annotations(file, durations=lengths, on_broken=on_broken, progress=progress)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return records


def words_of(records: Sequence[Record]) -> set[str]:
    """Return the distinct words of all sentences."""
    return {word for record in records for word in tokenize(record.sentence)}
