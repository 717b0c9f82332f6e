"""Drift of test queries: words that training never had, and in how many queries (``hero-plugin vocab stats``)."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from hero_plugin.integrations.data import Record, Tokenizer, read_many, read_sentences
from hero_plugin.integrations.data.words import TOKENIZERS, open_tokenizer
from hero_plugin.integrations.scoring.open_vocabulary import Drift, measure_drift, training_vocabulary
from hero_plugin.integrations.support import UserError, write_json
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.plotting import CYCLE, GRID, INK, MUTED, SETTINGS, new_figure, save_figure
from hero_plugin.integrations.support.tables import terminal_table
from hero_plugin.integrations.tools.vocab.english import Tagger, coarse, find_tagger


@dataclass(frozen=True)
class StatsConfig:
    """Say how many test queries are made only of words that training had, and which words it never had."""

    train: tuple[Path, ...]
    """Training annotations, any format; their words are the training vocabulary."""
    test: tuple[Path, ...]
    """Test annotations, any format; each file is a row."""
    tokenizer: str = "words"
    """What a word is: words, treebank, whitespace, stripped, letters, or MODULE:FUNCTION."""
    top: int = 15
    """Unseen words listed per test file."""
    sensitivity: bool = False
    """Also give the shares under each tokenizer."""
    json_: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """Write everything to this file."""
    figure: Path | None = None
    """Draw it into this PNG."""


def stats(config: StatsConfig) -> None:
    """Print the tables of ``hero-plugin vocab stats``, and write what the flags name."""
    split = open_tokenizer(config.tokenizer)
    training = read_many(config.train, read_sentences)
    names = [file.stem for file in config.test]
    if len(set(names)) < len(names):
        names = list(map(str, config.test))
    tests = {name: read_many([file], read_sentences) for name, file in zip(names, config.test, strict=True)}
    tagger = find_tagger()
    vocabulary, sets = measure(training, tests, split, tagger)
    screen = Screen()
    screen.show(drift_table(vocabulary, sets))
    for each in sets:
        if each.drift.ranking and config.top:
            screen.show(words_table(each, config.top))
    tags = tagger.name if tagger else 'no tagger at hand (pip install "hero-plugin[vocab]")'
    print(f"tokenizer: {config.tokenizer}; parts of speech: {tags}")
    if config.sensitivity:
        rows = []
        for name, (function, what) in TOKENIZERS.items():
            try:
                rows.append((name, what, *measure(training, tests, function)))
            except UserError as error:
                screen.say(f"tokenizer {name} left out: {error}")
        if config.tokenizer not in TOKENIZERS:
            rows.append((config.tokenizer, "", vocabulary, sets))
        screen.show(sensitivity_table(rows))
    if config.json_ is not None:
        facts = {"tokenizer": config.tokenizer, "tagger": tagger.name if tagger else None}
        values = {**facts, "training_words": len(vocabulary), "tests": {each.name: each.to_json() for each in sets}}
        write_json(config.json_, values, indent=1, ascii=False)
        print(config.json_)
    if config.figure is not None:
        print(save_figure(drift_figure(sets, len(vocabulary)), config.figure))


@dataclass(frozen=True)
class SetDrift:
    """One test file compared with the training vocabulary."""

    name: str
    records: Sequence[Record]
    drift: Drift
    pos: Mapping[str, str]
    """Unseen word -> noun, verb, adjective, adverb or other; empty where nothing tags."""

    def by_pos(self) -> dict[str, tuple[int, int]]:
        """Return {part of speech: (unseen words, their occurrences)}."""
        found: dict[str, list[int]] = defaultdict(list)
        for word in self.drift.ranking:
            found[self.pos.get(word.word, "not tagged")].append(word.count)
        return {pos: (len(counts), sum(counts)) for pos, counts in sorted(found.items(), key=lambda i: -len(i[1]))}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; ``unseen_by_query`` lists each query that has unseen words."""
        drift = self.drift
        return {
            "queries": drift.queries,
            "words": drift.words,
            "tokens": drift.tokens,
            "unseen_tokens": drift.unseen_tokens,
            "seen_only": drift.seen_only,
            "seen_share": drift.seen_share,
            "queries_by_unseen_words": {str(number): count for number, count in drift.by_number().items()},
            "unseen_by_pos": {pos: {"words": words, "said": said} for pos, (words, said) in self.by_pos().items()},
            "unseen_words": [
                {
                    "word": word.word,
                    "pos": self.pos.get(word.word),
                    "count": word.count,
                    "queries": word.queries,
                    "examples": [self.records[index].sentence for index in word.examples],
                }
                for word in drift.ranking
            ],
            "unseen_by_query": {
                record.query_id: list(words) for record, words in zip(self.records, drift.unseen, strict=True) if words
            },
        }


def measure(
    train: Sequence[Record], tests: Mapping[str, Sequence[Record]], tokenizer: Tokenizer, tagger: Tagger | None = None
) -> tuple[frozenset[str], list[SetDrift]]:
    """Return the training vocabulary, and each test set compared with it.

    Raises ``UserError`` where a query has no word, and would count as one of seen words.
    """
    vocabulary = training_vocabulary(tokenizer(record.sentence) for record in train)
    found = []
    for name, records in tests.items():
        queries = [tokenizer(record.sentence) for record in records]
        if lacking := [record.sentence for record, words in zip(records, queries, strict=True) if not words]:
            raise UserError(
                f"{name}: the tokenizer finds no word in {len(lacking)} of {len(queries)} queries, such as "
                f"{lacking[0]!r}; give another --tokenizer, or leave them out"
            )
        drift = measure_drift(queries, vocabulary)
        found.append(SetDrift(name, records, drift, _tags(records, drift, tokenizer, tagger) if tagger else {}))
    return vocabulary, found


def _tags(records: Sequence[Record], drift: Drift, tokenizer: Tokenizer, tagger: Tagger) -> dict[str, str]:
    """Return the part of speech that each unseen word most often has."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for record, unseen in zip(records, drift.unseen, strict=True):
        if unseen:
            words = tokenizer(record.sentence)
            for word, tag in zip(words, tagger.tag(words), strict=True):
                if word in unseen:
                    votes[word][coarse(tag)] += 1
    return {word: counts.most_common(1)[0][0] for word, counts in votes.items()}


def drift_table(vocabulary: frozenset[str], tests: Sequence[SetDrift]) -> Table:
    """Return a table with one row per test set."""
    header = ("test", "queries", "words", "only seen words", "share %", "1 unseen", "2+ unseen", "unseen words")
    rows = []
    for test in tests:
        drift, one = test.drift, test.drift.by_number().get(1, 0)
        counts = (drift.queries, drift.words, drift.seen_only)
        others = (one, drift.queries - drift.seen_only - one, len(drift.ranking))
        rows.append((test.name, *map("{:,}".format, counts), f"{drift.seen_share:.2f}", *map("{:,}".format, others)))
    return terminal_table(header, rows, title=f"training vocabulary: {len(vocabulary):,} words")


def words_table(test: SetDrift, top: int) -> Table:
    """Return a table of the most frequent unseen words of a test set, with a query for each."""
    plural = ("noun", "verb", "adjective", "adverb")
    counts = {pos: words for pos, (words, _) in test.by_pos().items()}
    kinds = ", ".join(f"{n} {pos}{'s' if pos in plural and n != 1 else ''}" for pos, n in counts.items())
    text, rows = ("part of speech", "for example"), []
    for word in test.drift.ranking[:top]:
        example = test.records[word.examples[0]].sentence
        rows.append((word.word, test.pos.get(word.word, "-"), str(word.count), str(word.queries), example))
    title = f"{test.name}: {len(test.drift.ranking):,} unseen words ({kinds})"
    return terminal_table(("word", text[0], "said", "queries", text[1]), rows, text, title)


def sensitivity_table(found: Sequence[tuple[str, str, frozenset[str], Sequence[SetDrift]]]) -> Table:
    """Return a table of the same figures per (tokenizer, what it does, training vocabulary, test sets)."""
    header = ("tokenizer", "a word is", "training words", *(test.name for test in found[0][3]))
    rows = (
        (name, what, f"{len(vocabulary):,}", *(f"{test.drift.seen_share:.2f}" for test in tests))
        for name, what, vocabulary, tests in found
    )
    return terminal_table(header, rows, ("a word is",), "the share of queries with only seen words, %")


_BINS = ("only seen words", "1 unseen", "2 or more unseen")
_SHADES = (GRID, CYCLE[2], CYCLE[4])
_POS = ("noun", "verb", "adjective", "adverb", "other", "not tagged")


@mpl.rc_context(SETTINGS)
def drift_figure(tests: Sequence[SetDrift], training_words: int, top: int = 18) -> Figure:
    """Draw queries by their number of unseen words and, below, each set's most common unseen words."""
    columns = len(tests)
    heights = (0.55 * columns + 0.5, 0.24 * top)
    figure, axes = new_figure(
        max(7.5, 4.2 * columns), 1.6 + 0.5 * columns + 0.22 * top, 2, columns, height_ratios=heights
    )
    grid = axes[0][0].get_gridspec()
    for axis in axes[0]:
        axis.remove()
    shares = figure.add_subplot(grid[0, :])
    for row, test in enumerate(tests):
        numbers, left = test.drift.by_number(), 0.0
        none, one = numbers.get(0, 0), numbers.get(1, 0)
        for shade, count in zip(_SHADES, (none, one, test.drift.queries - none - one), strict=True):
            width = 100 * count / test.drift.queries
            shares.barh(row, width, left=left, height=0.62, color=shade)
            if width >= 2.5:
                ink = INK if shade == GRID else "white"
                shares.text(left + width / 2, row, f"{width:.1f}", ha="center", va="center", fontsize=9, color=ink)
            left += width
        shares.text(101, row, f"{test.drift.queries:,} queries", va="center", fontsize=9, color=MUTED)
    shares.set_yticks(range(len(tests)), [test.name for test in tests])
    shares.set(xlim=(0, 100), ylim=(len(tests) - 0.5, -0.5), xlabel="% of queries")
    shares.set_title(f"Queries by unseen words; training has {training_words:,} words", pad=24)
    shares.grid(False)
    shares.tick_params(axis="y", length=0)
    handles = [shares.barh(0, 0, color=shade) for shade in _SHADES]
    shares.legend(handles, _BINS, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    used = {test.pos.get(word.word, "not tagged") for test in tests for word in test.drift.ranking[:top]}
    colors = {pos: CYCLE[place] if pos != "other" else MUTED for place, pos in enumerate(_POS)}
    for column, test in enumerate(tests):
        axis = axes[1][column]
        words = test.drift.ranking[:top]
        for row, word in enumerate(words):
            axis.barh(row, word.queries, height=0.7, color=colors[test.pos.get(word.word, "not tagged")])
            axis.text(word.queries, row, f" {word.queries}", va="center", fontsize=8, color=MUTED)
        axis.set_yticks(range(len(words)), [word.word for word in words], fontsize=9, color=INK)
        axis.set(ylim=(top - 0.4, -0.6), xlabel="queries")
        axis.set_title(f"{test.name}: {len(test.drift.ranking):,} unseen words", fontsize=10)
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
    shown = [pos for pos in _POS if pos in used]
    last = axes[1][-1]
    last.legend([last.barh(0, 0, color=colors[pos]) for pos in shown], shown, loc="lower right")
    return figure
