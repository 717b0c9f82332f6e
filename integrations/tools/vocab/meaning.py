"""Meaning of words: WordNet's senses, cosines of word vectors, and the likely sense of a word in its query."""

import io
import os
import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hero_plugin.integrations.data import WordVectors, tokenize
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.vocab.english import RuleTagger, TaggedQuery

FOLDERS = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/usr/share/nltk_data/corpora/wordnet")
# The lexicographer files of WordNet, in their order; Debian's package leaves this list out.
_NOUNS = """Tops act animal artifact attribute body cognition communication event feeling food group location motive
object person phenomenon plant possession process quantity relation shape state substance time"""
_VERBS = """body change cognition communication competition consumption contact creation emotion motion perception
possession social stative weather"""
_LEXNAMES = (
    *("adj.all", "adj.pert", "adv.all"),
    *(f"noun.{name}" for name in _NOUNS.split()),
    *(f"verb.{name}" for name in _VERBS.split()),
    "adj.ppl",
)
_RARE = 0.5  # the count of a sense that the tagged corpus never had, divided by its rank


def find_wordnet(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of WordNet's files: the one named, nltk's, or a Debian package's.

    Raises ``UserError`` where there is none; the message says how to get it.
    """
    homes = [Path.home() / "nltk_data", *map(Path, os.environ.get("NLTK_DATA", "").split(os.pathsep))]
    usual = [*(home / "corpora" / "wordnet" for home in homes), *map(Path, FOLDERS)]
    for place in usual if folder is None else [Path(folder)]:
        if (place / "data.noun").is_file():
            return place
    where = "on this machine" if folder is None else f"in {folder}: expected a file data.noun there"
    how = "install Debian's wordnet-base or nltk's data (python -m nltk.downloader wordnet), or name its folder with"
    raise UserError(f"no WordNet {where}; {how} --wordnet, or go without (--no-use-wordnet), with more errors")


def _reader(folder: Path) -> Any:
    try:
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError as error:
        raise UserError('WordNet is read by nltk: pip install "hero-plugin[vocab]"') from error

    class Reader(WordNetCorpusReader):
        def open(self, name: str) -> Any:
            if name == "lexnames":
                return io.StringIO("".join(f"{row:02}\t{each}\t0\n" for row, each in enumerate(_LEXNAMES)))
            return super().open(name)

        def map_wn(self, version: str = "wordnet") -> None:
            """Between WordNet versions; it would ask for nltk's own data."""

    folder = folder.resolve()
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # nltk opens nothing outside these folders
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the multilingual data, which nobody needs here
        return Reader(nltk.data.FileSystemPathPointer(str(folder)), None)


class WordNet:
    """Senses of words, and how likely each is. Parts of speech are WordNet's letters: n, v, a, r."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = _reader(folder)

    @lru_cache(maxsize=50_000)  # noqa: B019 (lives as long as the command)
    def senses(self, lemma: str, pos: str | None) -> tuple[Any, ...]:
        """Return the synsets of exactly this lemma (blanks allowed), the most frequent first."""
        return tuple(s for s in self._reader.synsets(lemma.replace(" ", "_"), pos) if _lemmas(s, lemma))

    @lru_cache(maxsize=50_000)  # noqa: B019
    def shares(self, lemma: str, pos: str) -> tuple[float, ...]:
        """Return how often the lemma has each of ``senses``, adding up to 1, by WordNet's counts in tagged text."""
        counts = [
            sum(own.count() for own in _lemmas(sense, lemma)) + _RARE / (1 + rank)
            for rank, sense in enumerate(self.senses(lemma, pos))
        ]
        total = sum(counts)
        return tuple(count / total for count in counts)

    def knows(self, phrase: str, pos: str | None = None) -> bool:
        """Return whether WordNet has an entry for these words: "living room", "turn on"."""
        return bool(self.senses(phrase, pos))

    def frames(self, sense: Any, lemma: str) -> frozenset[int]:
        """Return the numbers of the sentence frames that a verb takes in a sense."""
        return frozenset(frame for own in _lemmas(sense, lemma) for frame in own.frame_ids())


def _lemmas(sense: Any, phrase: str) -> list[Any]:
    """Return what a synset says about exactly these words."""
    name = phrase.replace(" ", "_").lower()
    return [own for own in sense.lemmas() if own.name().lower() == name]


_SIBLING = 0.4  # weight of a word of another query of the same video, beside 1 for one of the query itself
_SHARPNESS = 14.0  # how much the context decides in the choice of a sense
_EMPTY = frozenset({"person", "people", "man", "woman", "video", "camera"})
"""Words that every other query has, whatever it is about."""


class WordSimilarity:
    """Cosines between words and between sentences, and what a query is about, from a table of word vectors."""

    def __init__(self, vectors: WordVectors) -> None:
        rows = vectors.vectors.astype(np.float32)
        self._unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        centred = self._unit - self._unit.mean(axis=0)
        self._centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
        self._index = vectors.index
        self._contexts: dict[tuple[str, str], np.ndarray | None] = {}

    def knows(self, word: str) -> bool:
        """Return whether every word of an expression has a vector."""
        return all(part in self._index for part in word.split())

    def similarity(self, one: str, other: str) -> float | None:
        """Return the cosine of two words (of expressions: of their words' mean); None if one has no vector."""
        if not (self.knows(one) and self.knows(other)):
            return None
        left, right = (
            _unit(self._unit[[self._index[w] for w in words.split()]].mean(axis=0)) for words in (one, other)
        )
        return float(left @ right)

    def sentence_similarity(self, one: Iterable[str], other: Iterable[str]) -> float | None:
        """Return the cosine of two sentences' content words, each sentence the mean of its words."""
        left, right = self.mean(content(one)), self.mean(content(other))
        return None if left is None or right is None else float(left @ right)

    def mean(self, words: Iterable[str], weights: Iterable[float] | None = None) -> np.ndarray | None:
        """Return the unit mean (dim,) of words less what all words share; None if none has a vector."""
        pairs = zip(words, weights, strict=True) if weights is not None else ((word, 1.0) for word in words)
        total, any_word = np.zeros(self._centred.shape[1], np.float32), False
        for word, weight in pairs:
            if (row := self._index.get(word)) is not None:
                total += weight * self._centred[row]
                any_word = True
        return _unit(total) if any_word else None

    def context(self, query: TaggedQuery, without: str) -> np.ndarray | None:
        """Return the mean (dim,) of the query's and its video's other queries' words, one word left out."""
        key = (query.record.query_id, without)
        if key not in self._contexts:
            if len(self._contexts) > 1000:
                self._contexts.clear()
            empty = {without, *_EMPTY}
            own = [word for word in content(query.words) if word not in empty]
            others = [word for s in query.siblings for word in content(tokenize(s.sentence)) if word not in empty]
            weights = [1.0] * len(own) + [_SIBLING] * len(others)
            self._contexts[key] = self.mean(own + others, weights)
        return self._contexts[key]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def content(words: Iterable[str]) -> list[str]:
    """Return the words of the open classes: nouns, verbs, adjectives, and unclear ones."""
    return list(_content(tuple(words)))


@lru_cache(maxsize=50_000)
def _content(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word, tag in zip(words, RuleTagger().tag(words), strict=True) if tag[0] in "NVJ?")


class SenseJudge:
    """The likely sense of a word in a query: its frequency in text times how well its gloss fits the video."""

    def __init__(self, wordnet: WordNet, meaning: WordSimilarity) -> None:
        self.wordnet, self.meaning = wordnet, meaning

    def chances(self, query: TaggedQuery, word: str, base: str, pos: str) -> tuple[float, ...]:
        """Return the probability of each sense of ``base`` in this query, in the order of ``WordNet.senses``."""
        shares = np.array(self.wordnet.shares(base, pos))
        context = self.meaning.context(query, word) if len(shares) > 1 else None
        if context is None:
            return tuple(shares.tolist())
        glosses = [self._gloss(base, pos, rank) for rank in range(len(shares))]
        fits = np.array([0.0 if gloss is None else float(context @ gloss) for gloss in glosses])
        weights = (shares + 0.02) * np.exp(_SHARPNESS * (fits - fits.max()))
        return tuple((weights / weights.sum()).tolist())

    @lru_cache(maxsize=50_000)  # noqa: B019 (lives as long as the command)
    def _gloss(self, base: str, pos: str, rank: int) -> np.ndarray | None:
        """Return the mean (dim,) of the words that define a sense, its examples and its neighbours in WordNet."""
        sense = self.wordnet.senses(base, pos)[rank]
        near = [name for s in (sense, *sense.hypernyms()) for name in s.lemma_names()]
        text = " ".join((sense.definition(), *sense.examples(), *near)).replace("_", " ")
        return self.meaning.mean(word for word in content(tokenize(text)) if word != base)
