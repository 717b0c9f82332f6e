"""Words: tokenizers, word vectors, and the vocabulary of a run."""

from __future__ import annotations

import importlib
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np

from hero_plugin.integrations.data.contexts import Contexts
from hero_plugin.integrations.data.records import clean_sentence, clean_text
from hero_plugin.integrations.support.errors import DataError, Problem, Problems, UserError
from hero_plugin.integrations.support.files import OnProgress, iter_lines

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_TREEBANK = re.compile(r"[^\W_]+(?:[-/][^\W_]+)*n't\b|'(?:s|re|ve|ll|d|m)\b|[^\W_]+(?:[-/][^\W_]+)*|[^\w\s]|_")
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})
"""One character for one, so that places in a sentence stay."""


def tokenize(sentence: str, style: Literal["words", "treebank"] = "words") -> list[str]:
    """Split a sentence into lower-case words.

    Args:
        sentence: The sentence.
        style: "words" keeps letters and digits, with apostrophes and hyphens inside a word, and drops punctuation.
            "treebank" does as GloVe and EMB (through NLTK) do: contractions are split ("man's" -> "man", "'s";
            "don't" -> "do", "n't"), and every punctuation mark is a token of its own.

    >>> tokenize("A person's walk-in closet, opened.")
    ['a', "person's", 'walk-in', 'closet', 'opened']
    >>> tokenize("A person doesn't close it.", "treebank")
    ['a', 'person', 'does', "n't", 'close', 'it', '.']
    """
    text = plain(sentence)
    if style == "words":
        return _WORD.findall(text)
    if style != "treebank":
        raise ValueError(f'style must be "words" or "treebank", got {style!r}')
    tokens: list[str] = []
    for token in _TREEBANK.findall(text):
        if token.endswith("n't") and len(token) > 3:
            tokens += [token[:-3], "n't"]
        else:
            tokens.append(token)
    return tokens


def plain(sentence: str) -> str:
    """Return a sentence in lower case, with plain apostrophes: the text that ``tokenize`` cuts words out of."""
    return clean_text(sentence).lower().translate(_APOSTROPHES)


def is_word(token: str) -> bool:
    """Return whether a token says anything, as a comma or a full stop of the treebank's does not."""
    return any(map(str.isalnum, token))


def same_words(one: str, other: str) -> bool:
    """Return whether two sentences are one, however they are spaced, capitalized and punctuated.

    >>> same_words("A door opens.", "a door  opens")
    True
    """
    found = [tokenize(clean_sentence(each)) for each in (one, other)]
    return found[0] == found[1] if any(found) else clean_sentence(one) == clean_sentence(other)


def word_spans(sentence: str) -> list[tuple[int, int]]:
    """Return where the words of ``tokenize(sentence)`` begin and end, as indices into the sentence.

    >>> word_spans("A door, opened.")
    [(0, 1), (2, 6), (8, 14)]
    """
    text = sentence.translate(_APOSTROPHES)
    return [match.span() for match in _WORD.finditer(text)]


Tokenizer = Callable[[str], list[str]]
"""A sentence to its words, in order."""

TOKENIZERS: dict[str, tuple[Tokenizer, str]] = {
    "words": (tokenize, "letters and digits, apostrophes and hyphens inside words kept (the default)"),
    "treebank": (
        partial(tokenize, style="treebank"),
        "as GloVe and EMB: contractions split, punctuation marks are tokens",
    ),
    "whitespace": (lambda sentence: sentence.lower().split(), "lower case, split at blanks, punctuation left on"),
    "stripped": (
        lambda sentence: [word for raw in sentence.lower().split() if (word := raw.strip(".,!?;:\"'()[]"))],
        "the same, punctuation at the words' edges cut off",
    ),
    "letters": (lambda sentence: re.findall(r"[a-z]+", sentence.lower()), "runs of a to z"),
}
"""Tokenizers by name, with what each does: every figure about vocabularies depends on what counts as a word."""


def open_tokenizer(name: str) -> Tokenizer:
    """Return a tokenizer by its name in ``TOKENIZERS``, or by its place, "package.module:function"."""
    if name in TOKENIZERS:
        return TOKENIZERS[name][0]
    module, colon, function = name.partition(":")
    expected = f"expected one of {', '.join(TOKENIZERS)}, or MODULE:FUNCTION"
    if not colon:
        raise UserError(f"no tokenizer {name!r}: {expected}")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"no tokenizer {name!r} ({error}): {expected}") from error
    return found


def lacking_words(words: Iterable[str], table: Container[str]) -> tuple[list[str], bool]:
    """Return the words that a table lacks, and whether they are more than half: then it may be another's."""
    words = list(dict.fromkeys(words))
    lacking = [word for word in words if word not in table]
    return lacking, 2 * len(lacking) > len(words)


@dataclass
class WordVectors:
    """A table of words and their vectors.

    Attributes:
        words: V distinct words.
        vectors: float32 (V, dim); row i belongs to words[i].
        source: The file that they were read from, where more words may be.
        index: Row by word.
    """

    words: list[str]
    vectors: np.ndarray
    source: Path | None = field(default=None, repr=False, compare=False)
    index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.words) != len(self.vectors):
            shape = self.vectors.shape
            raise ValueError(f"vectors must be ({len(self.words)}, dim), one row per word, got shape {shape}")
        self.index = {word: row for row, word in enumerate(self.words)}
        if len(self.index) != len(self.words):
            raise ValueError("words must be distinct")

    @property
    def dim(self) -> int:
        """Return the width of a vector."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def get(self, word: str) -> np.ndarray | None:
        """Return the vector (dim,) of a word, or None."""
        row = self.index.get(word)
        return None if row is None else self.vectors[row]

    def only(self, words: Collection[str]) -> WordVectors:
        """Return the table of those of ``words`` that are here, in this table's order."""
        rows = [row for row, word in enumerate(self.words) if word in words]
        return WordVectors([self.words[row] for row in rows], self.vectors[rows], self.source)


_EXPECTED = "GloVe text, unpacked, blanks between the numbers, or .npz with the arrays words and vectors"


def load_word_vectors(
    path: str | os.PathLike[str], only: Collection[str] | None = None, *, progress: OnProgress | None = None
) -> WordVectors:
    """Read word vectors from ``.npz`` or from GloVe text.

    A ``.npz`` has arrays ``words`` (V,) and ``vectors`` (V, dim); text has one line ``word v1 v2 ... vD`` per word.
    A word that comes twice keeps its first vector. A word2vec-style first line ("2196017 300") is skipped.
    Words that hold blanks (glove.840B has some) are kept whole. A zero row for "<PAD>" stays: what to do with
    it is up to the caller.

    Args:
        path: The file.
        only: Keep these words only. glove.840B has 2.2 million lines and 2.6 GB of numbers; with ``only``, just the
            lines wanted are turned into numbers, and memory stays small.
        progress: Called as progress(bytes read, bytes in all) while a text file is read.

    Raises:
        FileNotFoundError: The file is missing.
        DataError: Lines are malformed; it lists each as file:line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no word vector file at {path}: expected {_EXPECTED}")
    with open(path, "rb") as stream:
        is_zip = stream.read(2) == b"PK"
    wanted = None if only is None else frozenset(only)
    table = _load_npz(path) if is_zip or path.suffix == ".npz" else _load_text(path, wanted, progress)
    table.source = path
    return table if wanted is None or not is_zip else table.only(wanted)


def _load_npz(path: Path) -> WordVectors:
    fix = f"expected {_EXPECTED}; save it with np.savez(path, words=np.array(list of str), vectors=array (V, dim))"
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ("words", "vectors") if name not in archive.files]
            if missing:
                has = ", ".join(archive.files[:5]) + (", ..." if len(archive.files) > 5 else "")
                raise DataError([Problem(str(path), f"no array {', '.join(missing)}; it has {has}", fix)])
            words, vectors = archive["words"], archive["vectors"]
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError([Problem(str(path), f"not a readable .npz file ({error})", fix)]) from error
    except (BadZipFile, zlib.error) as error:
        raise DataError([Problem(str(path), f"a damaged .npz file ({error})", "copy or download it again")]) from error
    if words.ndim != 1 or words.dtype.kind not in "US" or vectors.ndim != 2 or len(words) != len(vectors):
        what = f"words {words.dtype} {words.shape} and vectors {vectors.dtype} {vectors.shape} do not belong together"
        raise DataError([Problem(str(path), what, fix)])
    vectors = vectors.astype(np.float32)
    names = [word.decode("utf-8") if isinstance(word, bytes) else word for word in words.tolist()]
    broken = np.nonzero(~np.isfinite(vectors).all(axis=1))[0]
    if len(broken):
        raise DataError(
            Problem(f"{path}: row {row} ({names[row]!r})", "NaN or infinity in the vector", "remove the row")
            for row in broken
        )
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
    if len(first) != len(names):
        names, vectors = list(first), vectors[list(first.values())]
    return WordVectors(names, vectors)


def _load_text(path: Path, only: frozenset[str] | None, progress: OnProgress | None) -> WordVectors:
    wanted = None if only is None else {word.encode("utf-8") for word in only}
    blanks = only is None or any(" " in word for word in only)
    problems = Problems()
    rows: dict[bytes, np.ndarray] = {}
    dim = 0
    for number, raw in iter_lines(path, progress, every=20_000):
        line = raw.rstrip(b"\r\n").rstrip(b" ")
        if not line.strip():
            continue
        if not dim:
            fields = line.split(b" ")
            if number == 1 and len(fields) == 2 and all(f.strip().isdigit() for f in fields):
                continue  # word2vec header: how many words, how wide
            dim = _width(fields)
            if not dim:
                raise DataError([Problem(f"{path}:{number}", "no `word v1 v2 ... vD` line", f"expected {_EXPECTED}")])
        if line.count(b" ") < dim:
            what = f"{line.count(b' ')} numbers, expected {dim} as in the first line"
            problems.add(f"{path}:{number}", what, "the file may be truncated: download it again, or delete the line")
            continue
        word = line[: line.index(b" ")]
        if line.count(b" ") > dim:
            word = b" ".join(line.split(b" ")[:-dim])
        elif wanted is not None and not blanks and word not in wanted:
            continue
        if (wanted is not None and word not in wanted) or word in rows:
            continue
        try:
            vector = np.array([float(x) for x in line.split(b" ")[-dim:]], dtype=np.float32)
        except ValueError:
            problems.add(f"{path}:{number}", "something that is not a number among the numbers", "delete the line")
            continue
        if not np.isfinite(vector).all():
            problems.add(f"{path}:{number}", "NaN or infinity among the numbers", "delete the line")
            continue
        rows[word] = vector
    if not dim:
        problems.add(str(path), "an empty file", f"expected {_EXPECTED}")
    problems.raise_if_any()
    words: dict[str, np.ndarray] = {}
    for name, vector in rows.items():
        words.setdefault(name.decode("utf-8", errors="replace"), vector)
    return WordVectors(list(words), np.stack(list(words.values())) if words else np.zeros((0, dim), np.float32))


def _width(fields: list[bytes]) -> int:
    """Return how many of a line's last fields are numbers (the word itself may be one, but is never counted)."""
    for count, value in enumerate(reversed(fields[1:])):
        try:
            float(value)
        except ValueError:
            return count
    return len(fields) - 1


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of the rows of a frozen table.

    >>> vocabulary = Vocabulary(("a", "door", "opens"))
    >>> vocabulary.rows(["a", "wardrobe", "opens"])
    [0, -1, 2]
    """

    words: tuple[str, ...]
    scale: float = 1.0
    """The factor between the vectors and the table."""
    trained: int = 0
    """Number of words in training sentences, which come first; the others were never trained on."""
    adapted: tuple[str, ...] = ()
    """Words that adaptations trained on later."""
    counts: Mapping[str, int] = field(default_factory=dict, hash=False)
    """How often each word occurs in training sentences; empty in what an earlier version wrote."""
    contexts: Contexts = field(default=Contexts({}), hash=False, compare=False, repr=False)
    """Which words stand beside which in training sentences; likewise."""
    sample: Mapping[str, Sequence[float]] = field(default_factory=dict, hash=False, compare=False, repr=False)
    """A few numbers of the vectors of some trained words, where they are not kept with the model; likewise."""

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    @classmethod
    def of(
        cls,
        training: Iterable[Sequence[str]],
        others: Iterable[Sequence[str]],
        vectors: WordVectors,
        mean_length: float,
    ) -> Vocabulary:
        """Collect the words of tokenized sentences that have vectors, in order of appearance, trained ones first.

        ``mean_length`` is that of a training word's vector after scaling; 0 leaves the table as it is.
        """
        sentences = list(training)
        words = Counter(word for sentence in sentences for word in sentence if word in vectors)
        counts = dict(words)
        words.update(dict.fromkeys((word for sentence in others for word in sentence if word in vectors), 0))
        scale = 1.0
        if mean_length and counts:  # of training alone: a run must not depend on what it will be tested on
            rows = vectors.vectors[[vectors.index[word] for word in counts]]
            scale = mean_length / max(float(np.linalg.norm(rows, axis=1).mean()), 1e-12)
        return cls(tuple(words), scale, len(counts), counts=counts, contexts=Contexts.of(sentences))

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._rows

    def rows(self, words: Sequence[str], missing: int = -1) -> list[int]:
        """Return the row of each word, ``missing`` for one that is not here."""
        return [self._rows.get(word, missing) for word in words]

    def table(self, vectors: WordVectors) -> np.ndarray:
        """Return the vectors of the words, (words, dim) float32, scaled; ``UserError`` where a word has none."""
        if lacking := [word for word in self.words if word not in vectors]:
            raise UserError(f"the word table has no {lacking[0]!r}, which the run's has; give --words the run's table")
        rows = [vectors.index[word] for word in self.words]
        return (vectors.vectors[rows] * self.scale).astype(np.float32)

    def extended(self, sentences: Iterable[Sequence[str]], vectors: WordVectors) -> Vocabulary:
        """Return this vocabulary plus the new words of the sentences that have vectors; old ids keep their meaning."""
        new = dict.fromkeys(word for sentence in sentences for word in sentence if word in vectors and word not in self)
        return replace(self, words=(*self.words, *new))

    def with_words(self, sentences: Iterable[Sequence[str]]) -> Vocabulary:
        """Return this vocabulary plus all words of the sentences, whether a table has them or not."""
        return replace(self, words=tuple(dict.fromkeys((*self.words, *chain.from_iterable(sentences)))))

    def adapted_to(self, sentences: Iterable[Sequence[str]]) -> Vocabulary:
        """Return this vocabulary with its words in the sentences counted as trained on.

        Where an earlier version kept no counts, there are none after it: these sentences alone would tell a lie.
        """
        sentences = list(sentences)
        said = Counter(word for sentence in sentences for word in sentence if word in self)
        changed = replace(self, adapted=(*self.adapted, *self._untrained(said)))
        if not self.contexts:
            return changed
        return replace(
            changed, counts=dict(Counter(self.counts) + said), contexts=Contexts.of(sentences, self.contexts)
        )

    def counted(self, sentences: Iterable[Sequence[str]]) -> Vocabulary:
        """Return this vocabulary with the counts of all sentences that were learned, in place of any it has."""
        sentences = list(sentences)
        counts = dict(Counter(word for sentence in sentences for word in sentence if word in self))
        return replace(self, counts=counts, contexts=Contexts.of(sentences))

    def counts_of(self, words: Iterable[str]) -> list[int]:
        """Return how often each of these trained words occurs in training; 1 where an earlier version kept no count."""
        return [self.counts.get(word, 1) for word in words]

    def is_trained(self, words: Sequence[str]) -> np.ndarray:
        """Return which words a training sentence, or one of an adaptation, had: (words,) bool."""
        later = set(self.adapted)
        return np.array([self._rows.get(word, self.trained) < self.trained or word in later for word in words], bool)

    def unseen(self, tokens: Iterable[str]) -> list[str]:
        """Return the words that no training sentence had, each once; a punctuation mark is none.

        Those that training had without a vector are no rows, and among the contexts; a run of an earlier version, which
        kept none, does not know them.
        """
        said = self.contexts.following.get(1, {})
        return [word for word in self._untrained(tokens) if word not in said and is_word(word)]

    def trained_words(self) -> set[str]:
        """Return its words whose rows a training sentence, or one of an adaptation, had."""
        return set(self.words).difference(self._untrained(self.words))

    def _untrained(self, words: Iterable[str]) -> list[str]:
        """Return the words that have no trained row, each once."""
        words = list(dict.fromkeys(words))
        return [word for word, trained in zip(words, self.is_trained(words), strict=True) if not trained]

    def to_json(self) -> dict[str, Any]:
        """Return the vocabulary as JSON values."""
        adapted = {"adapted": list(self.adapted)} if self.adapted else {}
        counts = {"counts": dict(self.counts)} if self.counts else {}
        if self.contexts:
            counts["contexts"] = self.contexts.to_json()
        sample = {"sample": dict(self.sample)} if self.sample else {}
        return {"scale": self.scale, "trained": self.trained, **adapted, "words": list(self.words), **counts, **sample}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Vocabulary:
        """Return the vocabulary that ``to_json`` described."""
        words, adapted = tuple(value["words"]), tuple(value.get("adapted", ()))
        counts, contexts = value.get("counts", {}), Contexts.from_json(value.get("contexts", {}))
        sample = value.get("sample", {})
        return cls(words, float(value["scale"]), int(value["trained"]), adapted, counts, contexts, sample)
