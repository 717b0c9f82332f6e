"""Commands ``hero-plugin vocab``: measure drift, build open-vocabulary queries, review and sample them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from hero_plugin.integrations.annotations import read_annotations
from hero_plugin.integrations.annotations.sentences import read_sentences
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text
from hero_plugin.integrations.problems import DataError, Problem
from hero_plugin.integrations.progress_bar import bar
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab import apply_command, build_command
from hero_plugin.integrations.vocab.apply_command import ApplyConfig
from hero_plugin.integrations.vocab.build_command import BuildConfig
from hero_plugin.integrations.vocab.built_file import check_overwrite, read_built
from hero_plugin.integrations.vocab.rewording import is_reworded
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
        top: Unseen words to list per test file.
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


def build(config: Annotated[BuildConfig, tyro.conf.arg(name="")]) -> None:
    """Make open-vocabulary rewordings of an annotation file.

    Each says a word that training never had, means the same as its original and keeps the original's moments.
    OUTPUT.manifest.json says how they came about. Ctrl-C stops; the same command with --resume goes on.
    """
    build_command.build(config)


def review(*, input: Path, output: Path, overwrite: bool = False) -> None:
    """Make a page to review rewordings in a browser: accept, reject or edit each by a key, then export the decisions.

    The page is one file, asks for nothing else and sends nothing; the browser keeps what was decided. The exported
    decisions go into `vocab apply`, or into `vocab build --decisions`.

    Args:
        input: A file that `vocab build` made.
        output: The HTML file to write.
        overwrite: Replace an existing output.
    """
    from hero_plugin.integrations.checksum import checksum
    from hero_plugin.integrations.vocab.review import review_page

    check_overwrite(output, input, overwrite)
    records = read_built(input)
    number = sum(map(is_reworded, records))
    write_text(output, review_page(records, input.name, checksum(input)))
    print(f"{output}: {number} rewordings; open it in a browser")


def apply(config: Annotated[ApplyConfig, tyro.conf.arg(name="")]) -> None:
    """Apply a reviewer's decisions to a built file: accepted stay, rejected go, edited are checked anew."""
    apply_command.apply(config)


def sample(*, input: Files, output: Path, number: int = 200, seed: int = 0, overwrite: bool = False) -> None:
    """Draw rewordings to read and label, so that `vocab rate` can say how often the builder errs.

    Args:
        input: Files that `vocab build` made; the sample is of all of them together.
        output: The table to write, tab-separated, its first column empty for the label.
        number: Rewordings to draw.
        seed: Another seed, another sample.
        overwrite: Replace an existing output, and the labels in it.
    """
    from hero_plugin.integrations.vocab.sampling import LABELS, draw_sample, write_sample

    if number < 1:
        raise UserError(f"--number must be at least 1, got {number}")
    for file in input:
        check_overwrite(output, file, overwrite)
    built = [record for file in input for record in read_annotations(file, on_outside="keep")]
    drawn = draw_sample(built, number, seed)
    write_sample(drawn, output)
    print(f"{output}: {len(drawn)} rewordings; label each with one of {', '.join(LABELS)}")


def rate(files: tyro.conf.Positional[Files], /) -> None:
    """Say how often the builder errs, by the labels of samples.

    Args:
        files: Tables of `vocab sample`, labelled.
    """
    from hero_plugin.integrations.vocab.sampling import ERRORS, LABELS, read_labels, wilson_interval

    for file in files:
        counts = read_labels(file)
        number, errors = counts.total(), sum(counts[label] for label in ERRORS)
        low, high = wilson_interval(errors, number)
        print(f"{file.name}: " + ", ".join(f"{counts[label]} {label}" for label in LABELS))
        share, between = f"{100 * errors / number:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"
        print(f"  {errors} errors in {number}: {share}, 95 % interval {between}")


COMMANDS: dict[str, Callable[..., None]] = {
    "stats": stats,
    "build": build,
    "review": review,
    "apply": apply,
    "sample": sample,
    "rate": rate,
}


def command(argv: Sequence[str]) -> None:
    """Run one of ``COMMANDS``; mistakes in the input come out as exceptions."""
    tyro.extras.subcommand_cli_from_dict(
        {**COMMANDS},
        prog="hero-plugin vocab",
        description="Measure the drift of words, build open-vocabulary queries, review and sample them.",
        args=list(argv),
    )


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
