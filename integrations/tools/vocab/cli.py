"""The commands `hero-plugin vocab stats`, `review`, `sample` and `rate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from hero_plugin.integrations.data.annotations import read_annotations, read_sentences
from hero_plugin.integrations.data.records import Record, is_reworded
from hero_plugin.integrations.data.words import TOKENIZERS, open_tokenizer
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.errors import DataError, Problem, UserError
from hero_plugin.integrations.support.files import write_text
from hero_plugin.integrations.tools.vocab.builder import check_overwrite, read_built

Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]


@dataclass(frozen=True)
class StatsConfig:
    """Say how many test queries are made only of words that training had, and which words it never had."""

    train: Files
    """Training annotations, any format; their words are the training vocabulary."""
    test: Files
    """Test annotations, any format; each file is a row."""
    tokenizer: str = "words"
    """What a word is: words, treebank, whitespace, stripped, letters, or MODULE:FUNCTION."""
    lexicon: Path | None = None
    """A lexicon (JSON), whose parts of speech serve where no tagger is installed."""
    top: int = 15
    """So many unseen words are listed a test file."""
    sensitivity: bool = False
    """Also give the shares under each tokenizer."""
    json_: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """Write everything to this file."""
    figure: Path | None = None
    """Draw it into this PNG."""


def stats(config: StatsConfig) -> None:
    """Run the command."""
    from hero_plugin.integrations.tools.vocab.english import find_tagger
    from hero_plugin.integrations.tools.vocab.stats import drift_table, measure, sensitivity_table, to_json, words_table

    split = open_tokenizer(config.tokenizer)
    training, tests = (
        read_queries(config.train),
        {name: read_queries([file]) for name, file in _names(config.test).items()},
    )
    tagger = find_tagger(config.lexicon)
    vocabulary, sets = measure(training, tests, split, tagger)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(drift_table(vocabulary, sets))
    for each in sets:
        if each.drift.ranking and config.top:
            console.print(words_table(each, config.top))
    tags = tagger.name if tagger else 'no tagger at hand (pip install "hero-plugin[vocab]")'
    print(f"tokenizer: {config.tokenizer}; parts of speech: {tags}")
    if config.sensitivity:
        rows = [(name, what, *measure(training, tests, function)) for name, (function, what) in TOKENIZERS.items()]
        if config.tokenizer not in TOKENIZERS:
            rows.append((config.tokenizer, "", vocabulary, sets))
        console.print(sensitivity_table(rows))
    if config.json_ is not None:
        values = to_json(vocabulary, sets, config.tokenizer, tagger.name if tagger else None)
        write_text(config.json_, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        print(config.json_)
    if config.figure is not None:
        from hero_plugin.integrations.support.plotting import save_figure
        from hero_plugin.integrations.tools.vocab.stats import drift_figure

        print(save_figure(drift_figure(sets, len(vocabulary)), config.figure))


@dataclass(frozen=True)
class ReviewConfig:
    """Make a page to review rewordings in a browser: accept, reject or edit each by a key, then export the decisions.

    The page is one file, asks for nothing else and sends nothing; the browser keeps what was decided. The exported
    decisions go into `vocab apply`, or into `vocab build --decisions`.
    """

    input: Path
    """A file that `vocab build` made."""
    output: Path
    """The HTML file to write."""
    overwrite: bool = False
    """Replace an existing output."""


def review(config: ReviewConfig) -> None:
    """Run the command."""
    from hero_plugin.integrations.support.files import checksum
    from hero_plugin.integrations.tools.vocab.review import review_page

    check_overwrite(config.output, config.input, config.overwrite)
    records = read_built(config.input)
    number = sum(map(is_reworded, records))
    write_text(config.output, review_page(records, config.input.name, checksum(config.input)))
    print(f"{config.output}: {number} rewordings; open it in a browser")


@dataclass(frozen=True)
class SampleConfig:
    """Draw rewordings to read and label, so that `vocab rate` can say how often the builder errs."""

    input: Files
    """Files that `vocab build` made; the sample is of all of them together."""
    output: Path
    """The table to write, tab-separated, its first column empty for the label."""
    number: int = 200
    """So many."""
    seed: int = 0
    """Another seed, another sample."""
    overwrite: bool = False
    """Replace an existing output, and the labels in it."""


def sample(config: SampleConfig) -> None:
    """Run the command."""
    from hero_plugin.integrations.tools.vocab.review import LABELS, draw_sample, write_sample

    if config.number < 1:
        raise UserError(f"--number must be at least 1, got {config.number}")
    for file in config.input:
        check_overwrite(config.output, file, config.overwrite)
    built = [record for file in config.input for record in read_annotations(file, on_outside="keep")]
    drawn = draw_sample(built, config.number, config.seed)
    write_sample(drawn, config.output)
    print(f"{config.output}: {len(drawn)} rewordings; label each with one of {', '.join(LABELS)}")


@dataclass(frozen=True)
class RateConfig:
    """Say how often the builder errs, by the labels of samples."""

    files: tyro.conf.Positional[Files]
    """Tables of `vocab sample`, labelled."""


def rate(config: RateConfig) -> None:
    """Run the command."""
    from hero_plugin.integrations.tools.vocab.review import ERRORS, LABELS, read_labels, wilson_interval

    for file in config.files:
        counts = read_labels(file)
        number, errors = counts.total(), sum(counts[label] for label in ERRORS)
        low, high = wilson_interval(errors, number)
        print(f"{file.name}: " + ", ".join(f"{counts[label]} {label}" for label in LABELS))
        share, between = f"{100 * errors / number:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"
        print(f"  {errors} errors in {number}: {share}, 95 % interval {between}")


def read_queries(files: Sequence[Path]) -> list[Record]:
    """Read the queries of annotation files, for their words."""
    records: list[Record] = []
    problems: list[Problem] = []
    for file in files:
        try:
            with bar(f"reading {file.name}") as progress:
                records += read_sentences(file, progress)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return records


def _names(files: Sequence[Path]) -> dict[str, Path]:
    """Return short names of files, longer ones where two would be the same."""
    names = {file.stem: file for file in files}
    return names if len(names) == len(files) else {str(file): file for file in files}
