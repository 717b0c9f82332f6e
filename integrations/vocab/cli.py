"""`hero-plugin vocab ...`: measure the drift of words, build open-vocabulary queries, review and sample them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from hero_plugin.integrations.annotations.sentences import read_sentences
from hero_plugin.integrations.data_cli import bar
from hero_plugin.integrations.files import write_text
from hero_plugin.integrations.problems import DataError, Problem
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.tokenizers import TOKENIZERS, open_tokenizer

__all__ = ["COMMANDS", "command"]

Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]


def stats(
    *,
    train: Files,
    test: Files,
    tokenizer: str = "words",
    lexicon: Path | None = None,
    top: int = 15,
    sensitivity: bool = False,
    json_: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    figure: Path | None = None,
) -> None:
    """Say how many test queries are made only of words that training had, and which words it never had.

    Args:
        train: Training annotations, any format; their words are the training vocabulary.
        test: Test annotations, any format; each file is a row.
        tokenizer: What a word is: words, treebank, whitespace, stripped, letters, or MODULE:FUNCTION.
        lexicon: A lexicon (JSON), whose parts of speech serve where no tagger is installed.
        top: So many unseen words are listed a test file.
        sensitivity: Also give the shares under each tokenizer.
        json_: Write everything to this file.
        figure: Draw it into this PNG.
    """
    from hero_plugin.integrations.vocab.stats import drift_table, measure, sensitivity_table, to_json, words_table
    from hero_plugin.integrations.vocab.tagging import find_tagger

    split = open_tokenizer(tokenizer)
    training, tests = read_queries(train), {name: read_queries([file]) for name, file in _names(test).items()}
    tagger = find_tagger(lexicon)
    vocabulary, sets = measure(training, tests, split, tagger)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(drift_table(vocabulary, sets))
    for each in sets:
        if each.drift.ranking and top:
            console.print(words_table(each, top))
    tags = tagger.name if tagger else 'no tagger at hand (pip install "hero-plugin[vocab]")'
    print(f"tokenizer: {tokenizer}; parts of speech: {tags}")
    if sensitivity:
        rows = [(name, what, *measure(training, tests, function)) for name, (function, what) in TOKENIZERS.items()]
        if tokenizer not in TOKENIZERS:
            rows.append((tokenizer, "", vocabulary, sets))
        console.print(sensitivity_table(rows))
    if json_ is not None:
        values = to_json(vocabulary, sets, tokenizer, tagger.name if tagger else None)
        write_text(json_, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        print(json_)
    if figure is not None:
        from hero_plugin.integrations.figures.style import save_figure
        from hero_plugin.integrations.vocab.figure import drift_figure

        print(save_figure(drift_figure(sets, len(vocabulary)), figure))


COMMANDS: dict[str, Callable[..., None]] = {
    "stats": stats,
}


def command(argv: Sequence[str]) -> None:
    """`hero-plugin vocab ...`: run one of COMMANDS; mistakes in the input come out as exceptions."""
    tyro.extras.subcommand_cli_from_dict(
        {**COMMANDS},
        prog="hero-plugin vocab",
        description="Measure the drift of words, build open-vocabulary queries, review and sample them.",
        args=list(argv),
    )


def read_queries(files: Sequence[Path]) -> list[Record]:
    """The queries of annotation files, for their words."""
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
    """Short names of files, telling apart those of one name."""
    names = {file.stem: file for file in files}
    return names if len(names) == len(files) else {str(file): file for file in files}
