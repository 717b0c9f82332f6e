"""Words taken out of training, so that people's own test queries say unseen ones (``hero-plugin vocab hold-out``)."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hero_plugin.integrations import data
from hero_plugin.integrations.data.annotations import WRITTEN
from hero_plugin.integrations.data.words import open_tokenizer
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.support.files import check_free, write_text
from hero_plugin.integrations.tools.vocab.english import CLOSED, lemma, package_versions


@dataclass(frozen=True)
class HoldOutConfig:
    """Take all queries that say some words out of training annotations: nouns and verbs, drawn with all their forms.

    A model that trains on what is left meets these words in test queries that nobody reworded. Draw from the words that
    test queries say, or few of them will.
    """

    input: Path
    """Training annotations, any format."""
    output: Path
    """The queries that say none of the words, in the same format, or as JSON lines where that is only read. Beside it,
    the words, in OUTPUT.words.txt."""
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
    tokenizer: str = "words"
    """What a word is, as for `train`: words, treebank, whitespace, stripped, letters, or MODULE:FUNCTION."""
    durations: tuple[Path, ...] = ()
    """Files with videos' lengths, for Charades-STA text."""
    overwrite: bool = False
    """Replace OUTPUT."""


def hold_out(config: HoldOutConfig) -> None:
    """Write the annotations of ``hero-plugin vocab hold-out``.

    Raises ``UserError`` where no word is said so often and so rarely, or the share is no share.
    """
    if not 0 < config.share < 1 or not 0 < config.least <= config.most:
        raise UserError("--share must be between 0 and 1, and --least at least 1 and at most --most")
    package_versions()
    split = open_tokenizer(config.tokenizer)
    words_file = config.output.with_name(f"{config.output.name}.words.txt")
    for path in (config.output, words_file):
        check_free(path, config.overwrite, config.input, *config.test, *config.durations)
    durations = data.load_durations(list(config.durations)) if config.durations else None
    report = data.ReadReport()
    records = data.read_annotations(
        config.input, durations=durations, on_outside="keep", on_broken="drop", report=report
    )
    training = [split(record.sentence) for record in records]
    tests = {path: [split(record.sentence) for record in data.read_sentences(path)] for path in config.test}
    held = draw_words(training, config, [words for sentences in tests.values() for words in sentences])
    kept = [record for record, words in zip(records, training, strict=True) if not says(words, held)]
    written = report.format if report.format in WRITTEN else "qvhighlights"
    data.write_annotations(kept, config.output, format=written)
    everything = {word for sentences in (training, *tests.values()) for words in sentences for word in words}
    forms = sorted(word for word in everything if family(word) in held)
    write_text(words_file, "\n".join(forms) + "\n")
    for number, what in ((len(report.dropped), "queries"), (len(report.lost_windows), "windows of other queries")):
        if number:
            print(f"{config.input}: left out {number} {what} that cannot be used")
    print(f"{config.output}: {len(kept):,} of {len(records):,} queries")
    print(f"{words_file}: {len(forms)} words held out, which the others say")
    for path, sentences in tests.items():
        print(
            f"{path}: {sum(says(words, held) for words in sentences):,} of {len(sentences):,} queries say one of them"
        )


def draw_words(
    training: Sequence[Sequence[str]], config: HoldOutConfig, asked: Sequence[Sequence[str]] = ()
) -> set[str | None]:
    """Return the families of words to hold out: as many, drawn one by one, as the share of training queries allows.

    Raises ``UserError`` where there are none.
    """
    saying: dict[str, set[int]] = defaultdict(set)
    for place, sentence in enumerate(training):
        for name in filter(None, map(family, sentence)):
            saying[name].add(place)
    said = {family(word) for sentence in asked for word in sentence} if asked else set(saying)
    fit = sorted(name for name in saying if name in said and config.least <= len(saying[name]) <= config.most)
    random.Random(config.seed).shuffle(fit)
    drawn: set[str | None] = set()
    gone: set[int] = set()
    for name in fit:
        if len(gone | saying[name]) <= config.share * len(training):
            gone |= saying[name]
            drawn.add(name)
    if not drawn:
        raise UserError(
            f"no word is said by {config.least} to {config.most} training queries within a share of {config.share:g}; "
            "change --least, --most or --share"
        )
    return drawn


def says(words: Sequence[str], families: set[str | None]) -> bool:
    """Return whether one of the words is of these families."""
    return any(family(word) in families for word in words)


def family(word: str) -> str | None:
    """Return what the forms of a noun or verb have in common, "close" of "closes" and "closing"; None for other words.

    What else a query says hardly tells its moment: without "both", "across" or "for" it is found as well.
    """
    word = word.removesuffix("'s").removesuffix("\u2019s")
    return None if word in CLOSED else lemma(word, "v") or lemma(word, "n")
