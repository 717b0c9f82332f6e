"""The words of queries: swapped for near ones, as vectors of a table or of a file, bridged to what training had.

Swaps are not in the paper: in a training sentence, a whole word of the table takes a word's place, before any model,
so that a base meets more words than its training has. It works with HERO and without.
"""

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hero_plugin import Bridge
from hero_plugin.integrations.data import Record, read_annotations
from hero_plugin.integrations.data.feature_bank import StoreBank
from hero_plugin.integrations.data.features import open_features, sentence_of, unit_length
from hero_plugin.integrations.data.records import REWORDED, is_reworded
from hero_plugin.integrations.data.words import Tokenizer, Vocabulary, WordVectors, is_word, load_word_vectors, plain
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import Problems, UserError
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.distributed import seed_of

NEAR, NEAR_WORDS = 0.55, 8
"""A word gives way to one of so many nearest ones, at a cosine above this: docs/results/one_level.md."""
_AT_ONCE = 1 << 24


def near_words(training: Sequence[str], table: WordVectors, tokenize: Tokenizer) -> dict[str, tuple[str, ...]]:
    """Return for each word of the training sentences the near words of the table that these sentences lack.

    A word that they have keeps its own meaning: near "opens" is "closes", too. What ``tokenize`` does not leave in one
    piece is no word.
    """
    known = set(training)
    names = [word for word in table.words if word not in known and tokenize(word) == [word]]
    words = [word for word in training if word in table]
    if not names or not words:
        return {}
    others, directions = (_directions(table, each) for each in (names, words))
    rows, many = max(1, _AT_ONCE // len(names)), min(NEAR_WORDS, len(names))
    found: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(words), rows):
        cosines = directions[start : start + rows] @ others.T
        nearest = np.argpartition(-cosines, many - 1, axis=1)[:, :many]
        for word, cosine, places in zip(words[start:], cosines, nearest, strict=False):
            near = sorted((-cosine[place], names[place]) for place in places if cosine[place] > NEAR)
            if near:
                found[word] = tuple(name for _, name in near)
    return found


def _directions(table: WordVectors, words: Sequence[str]) -> np.ndarray:
    vectors = table.vectors[[table.index[word] for word in words]]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class WordSwaps:
    """What words of the training sentences may give way to."""

    near: Mapping[str, tuple[str, ...]]
    """Near words by word."""
    share: float
    """Probability that a word which has near ones gives way to one of them, each equally likely."""
    tokenize: Tokenizer

    @classmethod
    def of(cls, config: TrainConfig, sets: Mapping[str, Sequence[Record]], tokenize: Tokenizer) -> "WordSwaps | None":
        """Return the swaps that the settings ask for; None where they ask for none, or no set is to train on.

        Raises:
            UserError: No word has a near one.
        """
        if not config.swap_words or "train" not in sets:
            return None
        training = list(dict.fromkeys(word for record in sets["train"] for word in tokenize(record.sentence)))
        near = near_words(training, load_word_vectors(config.word_table), tokenize)
        if not near:
            raise UserError(
                f"--swap-words: {config.words} has no word near one of the training sentences that they lack; "
                "give --words a table of more words than those of the annotations"
            )
        return cls(near, config.swap_words, tokenize)

    @property
    def words(self) -> list[str]:
        """Return all near words, each once."""
        return list(dict.fromkeys(chain.from_iterable(self.near.values())))

    def records(self, records: Sequence[Record], seed: int, epoch: int) -> list[Record]:
        """Return the records with the sentences of an epoch: the same for the same seed and epoch."""
        tokens = [self.tokenize(record.sentence) for record in records]
        generator = torch.Generator().manual_seed(seed_of(seed, epoch, "swaps"))
        draws = torch.rand((sum(map(len, tokens)), 2), generator=generator, dtype=torch.float64).tolist()
        ends = np.cumsum([len(words) for words in tokens])
        return [
            record.replace(sentence=self._sentence(record.sentence, words, draws[end - len(words) : end]))
            for record, words, end in zip(records, tokens, ends, strict=True)
        ]

    def _sentence(self, sentence: str, words: Sequence[str], draws: Sequence[Sequence[float]]) -> str:
        """Return the sentence with near words in place of those that the draws fall on."""
        text, done, swapped, pieces = plain(sentence), 0, list(words), []
        for place, (word, (chance, which)) in enumerate(zip(words, draws, strict=True)):
            start = text.find(word, done)
            if start < 0:  # a tokenizer of one's own, which changes words
                return sentence
            if chance < self.share and (near := self.near.get(word)):
                swapped[place] = near[int(which * len(near))]
            pieces += [text[done:start], swapped[place]]
            done = start + len(word)
        text = "".join([*pieces, text[done:]])
        return text if swapped != list(words) and self.tokenize(text) == swapped else sentence


ARRAY = "last_hidden_state"
"""Name of the array in the published files: CLIP's vector of each token."""


class Queries(Protocol):
    """The words of queries as vectors."""

    dim: int
    """Width of a vector."""

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (B, L, dim) float32 with zeros for padding, and mask (B, L) bool."""


class WordQueries(Queries):
    """Word vectors from a table; zeros, or ``unknown`` (dim,), for a word that the table lacks, as in lighthouse.

    Any word of the table serves, whether a training sentence had it or not. Queries longer than ``max_words`` are cut;
    ``normalize`` scales each word's vector to length 1.
    """

    def __init__(
        self,
        vectors: WordVectors,
        tokenize: Tokenizer,
        max_words: int,
        normalize: bool,
        unknown: np.ndarray | None = None,
    ) -> None:
        self.index, self.tokenize, self.max_words, self.dim = vectors.index, tokenize, max_words, vectors.dim
        self.normalize, self.source = normalize, vectors.source
        rows = unit_length(vectors.vectors) if normalize else vectors.vectors
        last = np.zeros(self.dim) if unknown is None else unknown
        self._table = np.concatenate([rows, last[None]]).astype(np.float32)

    def vector(self, word: str) -> np.ndarray:
        """Return the vector of a word, (dim,) float32."""
        return self._table[self.index.get(word, -1)]

    def others(self, words: Collection[str]) -> "WordQueries":
        """Return other words of the same file."""
        assert self.source is not None
        vectors = load_word_vectors(self.source, words)
        return WordQueries(vectors, self.tokenize, self.max_words, self.normalize)

    def sample(self, words: Iterable[str]) -> dict[str, list[float]]:
        """Return a few numbers of the vectors of the first of these words, by which the table is known again."""
        found = [word for word in words if word in self.index][:SAMPLE]
        return {word: [round(float(number), 4) for number in self.vector(word)[:8]] for word in found}

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        sentences = [self.tokenize(record.sentence)[: self.max_words] for record in records]
        rows, mask = padded_rows([[self.index.get(word, -1) for word in words] for words in sentences])
        vectors = np.zeros((*mask.shape, self.dim), np.float32)
        vectors[mask] = self._table[rows[mask]]
        return vectors, mask


def padded_rows(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of a table, of several sentences, as (B, L) long with 0 for padding, and their mask (B, L) bool."""
    lengths = np.array([len(each) for each in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros(mask.shape, np.int64)
    padded[mask] = np.concatenate(rows)
    return padded, mask


SAMPLE = 16
"""Trained words whose vectors a run remembers or compares, to know its word table again."""


def check_same_table(
    source: str, table: Container[str], vector: Callable[[str], np.ndarray], sample: Mapping[str, Sequence[float]]
) -> None:
    """Refuse another word table than the run's, as far as it has the words of the sample; it must have one of them.

    ``source`` names the table, which has the words ``table``; ``vector`` gives a word's vector as the model would read
    it, ``sample`` the first numbers of those that the run was trained with. ``UserError`` where a word has another
    vector, by more than the precision that tables are stored in, or none has any.
    """
    if sample and not any(word in table for word in sample):
        raise UserError(
            f"{source}: has none of the words that the run was trained with, such as {', '.join(list(sample)[:3])}: "
            "nothing tells that it is the run's word table; give --words that table, or one that has its words, too"
        )
    for word, numbers in sample.items():
        if word in table and not np.allclose(vector(word)[: len(numbers)], numbers, rtol=0.02, atol=2e-3):
            raise UserError(
                f"{source}: its vector of {word!r} is another than the run's: this is not the word table that the run "
                "was trained with, and answers by it would be wrong; give --words that table, or a copy of it"
            )


class QueryFolder:
    """A folder of a file of vectors, (words, dim), per query; ``store`` reads them by the names without endings."""

    def __init__(self, folder: Path, max_words: int, normalize: bool) -> None:
        self.folder = folder
        self.store = open_features(
            folder, max_clips=max_words, pooling="cut", normalize=normalize, array=ARRAY, rows="words"
        )
        self._said = lru_cache(1 << 16)(partial(sentence_of, folder))
        self._asked: dict[str, str] = {}  # by file, the sentence that it was first asked for

    def name(self, record: Record) -> str:
        """Return the name of a query's file, whether there is one or not; a rewording's is first sought by its link."""
        ids = [each for each in (_link(record), record.query_id) if each is not None]
        names = (name for each in ids for name in (f"qid{each}", each) if name in self.store)
        return next(names, f"qid{record.query_id}")

    def problem(self, record: Record) -> tuple[str, str] | None:
        """Return what is wrong, and what to do, where a query has no file or its file is of another sentence."""
        name, link = self.name(record), _link(record)
        if name not in self.store:
            return f"no {name}.npz in {self.folder}", "add it, or remove the query"
        said, file = self._said(name), self.folder / name
        if said is not None and said != record.sentence:
            return f"{file} holds the vectors of {said!r}, and the query is {record.sentence!r}", _ANOTHER_SENTENCE
        counted = record.query_id.rpartition("_")[0] == record.video_id  # as readers of formats without ids do
        if said is None and link not in (None, record.query_id) and counted and name not in (f"qid{link}", link):
            return f"{file} may be another query's: this is {link}, counted anew in its file", _ANOTHER_SENTENCE
        if (other := self._asked.setdefault(name, record.sentence)) != record.sentence:
            what = f"{other!r} in one place, {record.sentence!r} in another: whose features are those of {file}?"
            return what, "give each its own id in all annotations"
        return None


def _link(record: Record) -> str | None:
    """Return the id that a rewording was made under, where its link has one."""
    return record.extra[REWORDED].get("id") if is_reworded(record) else None


_ANOTHER_SENTENCE = (
    "extract the features of these queries into a folder of their own (hero-plugin data extract --queries), or give "
    "the annotations as JSON lines with the ids that the files are named by: other formats number queries anew"
)


class QueryFiles(Queries):
    """Each query's vectors from ``qidQUERY.npz``, or ``QUERY.npz``: the published features of QVHighlights.

    Raises:
        DataError: A query has no file, or its file is another query's, too.
    """

    def __init__(self, config: Any, records: Sequence[Record], screen: Screen | None = None) -> None:
        self._folder = QueryFolder(config.query_features, config.max_words, config.normalize_words)
        problems = Problems()
        for record in records:
            if found := self._folder.problem(record):
                problems.add(f"query {record.query_id}", *found)
        problems.raise_if_any()
        names = dict.fromkeys(map(self._folder.name, records))
        store = self._folder.store
        with (screen or Screen(quiet=True)).working("reading queries", len(names)) as progress:
            how = {"storage": config.storage, "gigabytes": config.memory}
            self.bank = StoreBank(store, names, progress=progress, **how)
        self.dim = store.dim

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        return self.bank.batch([self.bank.rows[self._folder.name(record)] for record in records])


TOKENS = 12_288
"""Tokens of training queries that the bridge is made of: three times those that it remembers."""
NEAREST = 0.1
"""The lowest cosine to a trained word that is trusted, beside what fits the place; chosen on val's rewordings."""


class BridgedWords(Queries):
    """Queries whose words that training never had are mixtures of those that it had, by meaning and by place.

    ``known`` says how often training said which words, and beside which; ``trained`` has the vectors of these, scaled
    as those of ``queries``.
    """

    def __init__(self, queries: WordQueries, known: Vocabulary, trained: WordVectors) -> None:
        self.queries, self.dim, self.known, self.trained = queries, queries.dim, known, trained
        counts = torch.tensor(known.counts_of(trained.words))
        self._bridge = Bridge(torch.from_numpy(trained.vectors), counts, nearest=NEAREST)
        self._had = known.trained_words()

    @classmethod
    def of_table(
        cls,
        vectors: WordVectors,
        tokenize: Tokenizer,
        known: Vocabulary,
        max_words: int,
        unknown: np.ndarray | None = None,
    ) -> "BridgedWords":
        """Return those of one table, which has the trained words and the new ones; arguments as ``WordQueries``'s."""
        queries = WordQueries(vectors, tokenize, max_words, normalize=False, unknown=unknown)
        return cls(queries, known, vectors.only(known.trained_words()))

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        vectors, mask = self.queries.batch(records)
        sentences = [self.queries.tokenize(record.sentence) for record in records]
        unseen = [(row, place) for row, sentence in enumerate(sentences) for place in self._unseen(sentence)]
        if unseen:
            at = tuple(np.transpose(unseen))
            expected = torch.stack([self._expected(sentences[row], place) for row, place in unseen])
            vectors[at] = self._bridge(torch.from_numpy(vectors[at]), expected).numpy()
        return vectors, mask

    def read_as(self, sentence: str) -> list[tuple[str, dict[str, float]]]:
        """Return each unseen word of a sentence, and what it is mixed of: shares by trained word, greatest first.

        A word without a share stays itself.
        """
        words, found = self.queries.tokenize(sentence), []
        for place in self._unseen(words):
            vector = torch.from_numpy(self.queries.vector(words[place]))
            shares, rows = self._bridge.shares(vector, self._expected(words, place))
            mixed = zip(shares.tolist(), rows.tolist(), strict=True)
            found.append((words[place], {self.trained.words[row]: share for share, row in mixed if share}))
        return found

    def examples(self, sentences: Iterable[str], most: int) -> list[str]:
        """Return a line for each of the first ``most`` sentences with unseen words: what these are mixed of, mainly."""
        lines = []
        for sentence in dict.fromkeys(sentences):
            parts = []
            for word, mixture in self.read_as(sentence):
                main = [f"{had} {share:.1f}" for had, share in mixture.items() if share >= 0.05]
                parts.append(f"{word} -> {', '.join(main) or 'itself'}")
            if parts:
                lines.append(f"{sentence}: {'; '.join(parts)}")
            if len(lines) == most:
                break
        return lines

    def _unseen(self, words: Sequence[str]) -> list[int]:
        """Return the places, of those that are read, of words that have a vector and that training never had."""
        read = enumerate(words[: self.queries.max_words])
        unseen = [(place, word) for place, word in read if word not in self._had and word in self.queries.index]
        return [place for place, word in unseen if is_word(word)]  # a comma means no other word

    def _expected(self, words: Sequence[str], place: int) -> Tensor:
        """Return how much each trained word is expected at a place: (trained,) float32."""
        expected = np.zeros(len(self.trained), np.float32)
        for word, more in self.known.contexts.expected(words, place, self.known.counts).items():
            if word in self.trained:
                expected[self.trained.index[word]] = more
        return torch.from_numpy(expected)


def bridged_words(queries: Queries, known: Vocabulary) -> BridgedWords:
    """Return the words of a table, those that training never had as mixtures of those that it had.

    Raises:
        UserError: They are not of a table, or there is none to read the trained words from.
    """
    if not isinstance(queries, WordQueries):
        raise UserError("--bridge needs a table of word vectors, or a run that was trained on a file per query")
    if queries.source is None:
        raise UserError("--bridge needs the word table, and these queries came without one: give --words")
    trained = load_word_vectors(queries.source, known.trained_words())
    if not len(trained):
        raise UserError(f"{queries.source}: has none of the words of the run's training; give --words its word table")
    if queries.normalize:
        trained = replace(trained, vectors=unit_length(trained.vectors))
    return BridgedWords(queries, known, trained)


class BridgedTokens(Queries):
    """Queries whose tokens are led to training's by ``Bridge.of_tokens``."""

    def __init__(self, queries: Queries, bridge: Bridge) -> None:
        self.queries, self.bridge, self.dim = queries, bridge, queries.dim

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors and the mask of queries; see ``Queries``."""
        vectors, mask = self.queries.batch(records)
        vectors[mask] = self.bridge(torch.from_numpy(vectors[mask])).numpy()
        return vectors, mask


def training_tokens(trained: Any, past: Sequence[Path] = ()) -> Tensor:
    """Return vectors (M, dim) of tokens of the training queries of a DETR's run, drawn by query, read from their files.

    ``past`` are the annotations that an adapted run had learned from before; each file's queries come in turn, so that
    the few of an adaptation are not lost among the others. ``UserError`` where the files of the training queries are
    not there, or are other queries'.
    """
    wanted = "--bridge remembers tokens of the run's training queries"
    if not trained.query_features.is_dir():
        raise UserError(f"{wanted}, whose files were in {trained.query_features}: no such folder")
    drawn: list[list[Record]] = []
    for path in (*past, trained.annotations_train):
        try:
            records = read_annotations(path, durations=trained.durations, on_broken=trained.on_broken)
        except FileNotFoundError as error:
            raise UserError(f"{wanted}, and there is {error}") from error
        drawn.append([records[place] for place in np.random.default_rng(0).permutation(len(records))])
    files = QueryFolder(trained.query_features, trained.max_words, trained.normalize_words)
    tokens: list[np.ndarray] = []
    count = 0
    for record in chain.from_iterable(zip_longest(*drawn)):
        if record is None:  # a shorter file has come to its end
            continue
        if found := files.problem(record):
            raise UserError(f"{wanted}: {found[0]}; {found[1]}")
        tokens.append(files.store[files.name(record)])
        count += len(tokens[-1])
        if count >= TOKENS:
            break
    return torch.from_numpy(np.concatenate(tokens))
