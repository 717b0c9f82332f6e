"""Words taken out of training, so that people's own test queries say unseen ones (``hero-plugin vocab hold-out``)."""

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hero_plugin.integrations import data
from hero_plugin.integrations.data import Record, tokenize
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.support.files import check_free, write_text
from hero_plugin.integrations.tools.vocab.english import lemma, package_versions


@dataclass(frozen=True)
class HoldOutConfig:
    """Take all queries that say some words out of training annotations: nouns and verbs, drawn with all their forms.

    A model that trains on what is left meets these words in test queries that nobody reworded. Draw from the words that
    test queries say, or few of them will.
    """

    input: Path
    """Training annotations, any format."""
    output: Path
    """The queries that say none of the words, in the same format; the words beside it, in a file .words.txt."""
    test: tuple[Path, ...] = ()
    """Test annotations, any format: only words that they say are held out."""
    share: float = 0.2
    """Of the training queries, at most this share goes."""
    least: int = 5
    """Of the words that at least so many training queries say, in any form,"""
    most: int = 150
    """and at most so many."""
    seed: int = 0
    """Of the draw."""
    overwrite: bool = False
    """Replace OUTPUT."""


def hold_out(config: HoldOutConfig) -> None:
    """Write the annotations of ``hero-plugin vocab hold-out``.

    Raises:
        UserError: No word is said so often and so rarely, or the share is no share.
    """
    if not 0 < config.share < 1 or not 0 < config.least <= config.most:
        raise UserError("--share must be between 0 and 1, and --least at least 1 and at most --most")
    package_versions()
    words_file = config.output.with_suffix(".words.txt")
    for path in (config.output, words_file):
        check_free(path, config.overwrite, config.input)
    report = data.ReadReport()
    records = data.read_annotations(config.input, on_outside="keep", on_broken="drop", report=report)
    asked = data.words_of(data.read_many(config.test, data.read_sentences)) if config.test else None
    words = draw_words(records, config, asked)
    kept = [record for record in records if words.isdisjoint(tokenize(record.sentence))]
    data.write_annotations(kept, config.output, format=report.format)
    write_text(words_file, "\n".join(sorted(words)) + "\n")
    if report.dropped:
        print(f"{config.input}: left out {len(report.dropped)} queries that cannot be used")
    print(f"{config.output}: {len(kept):,} of {len(records):,} queries")
    print(f"{words_file}: {len(words)} words held out, which the others say")
    for path in config.test:
        queries = data.read_sentences(path)
        saying = sum(not words.isdisjoint(tokenize(query.sentence)) for query in queries)
        print(f"{path}: {saying:,} of {len(queries):,} queries say one of them")


def draw_words(records: Sequence[Record], config: HoldOutConfig, asked: Collection[str] | None = None) -> set[str]:
    """Return the nouns and verbs to hold out, all forms of each: as many, drawn one by one, as the share allows.

    Raises:
        UserError: There are none.
    """
    saying: dict[str, set[int]] = defaultdict(set)
    forms: dict[str, set[str]] = defaultdict(set)
    for place, record in enumerate(records):
        for word in tokenize(record.sentence):
            if name := family(word):
                saying[name].add(place)
                forms[name].add(word)
    said = set(saying) if asked is None else {family(word) for word in asked}
    fit = sorted(name for name in saying if name in said and config.least <= len(saying[name]) <= config.most)
    random.Random(config.seed).shuffle(fit)
    drawn: set[str] = set()
    gone: set[int] = set()
    for name in fit:
        if len(gone | saying[name]) <= config.share * len(records):
            gone |= saying[name]
            drawn |= forms[name]
    if not drawn:
        raise UserError(
            f"no word is said by {config.least} to {config.most} training queries within a share of {config.share:g}; "
            "change --least, --most or --share"
        )
    return drawn


def family(word: str) -> str | None:
    """Return what the forms of a noun or verb have in common, "close" of "closes" and "closing"; None for other words.

    What else a query says hardly tells its moment: without "both", "across" or "for" it is found as well.
    """
    return lemma(word, "v") or lemma(word, "n")
