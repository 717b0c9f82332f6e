"""What each action looks like: one direction in feature space, half of it from the words people use for it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hero_plugin.integrations.problems import DataError, Problems
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.timelines.config import TimelineConfig
from hero_plugin.integrations.timelines.seeds import generator
from hero_plugin.integrations.timelines.timeline import CLASSES, Timeline
from hero_plugin.integrations.words import WordVectors, tokenize

__all__ = ["Prototypes", "build_prototypes", "content_words", "look"]

# Words that say nothing about the action. Particles (on, off, up, down, out) stay: they are half of many verbs.
_EMPTY_TEXT = """
a an the this that these those some their his her its they he she it them him person people man woman guy girl boy
another other someone somebody one two and or while then as is are was were be been being has have had do does did
begins begin began starts start started starting beginning continues in at of to with for from into by who which
there person's different next
"""
_EMPTY = frozenset(_EMPTY_TEXT.split())


@dataclass(frozen=True)
class Prototypes:
    """Directions of the actions.

    vectors: float32 (157, dim), length 1; queries: (157,) how many training queries describe each action;
    labels: the most telling words of each action's queries ("" where there are none), for figures;
    center: the mean word vector over actions, which meanings are measured from.
    """

    vectors: np.ndarray
    queries: np.ndarray
    labels: tuple[str, ...]
    center: np.ndarray

    @property
    def dim(self) -> int:
        """Width of a prototype."""
        return int(self.vectors.shape[1])

    def checksum(self) -> str:
        """Names these prototypes: equal on any machine up to five decimals."""
        return hashlib.sha256(np.round(self.vectors, 5).astype("<f4").tobytes()).hexdigest()[:16]


def build_prototypes(
    records: Iterable[Record],
    timelines: Mapping[str, Timeline],
    words: WordVectors,
    config: TimelineConfig | None = None,
    *,
    seed: int = 0,
) -> Prototypes:
    """One prototype an action, from training queries only.

    Each query belongs to the action of its video that its moment overlaps best (equally well: to each in part).
    An action's semantic half is the mean vector of its queries' content words, minus the mean over actions,
    through a fixed random projection to `config.dim`; the other half is a random direction. An action that no
    query describes is random altogether.

    Raises DataError where records name videos without a timeline, or where no query has a known content word.
    """
    config = config or TimelineConfig()
    sums, weights = np.zeros((CLASSES, words.dim)), np.zeros(CLASSES)
    counts: list[Counter[str]] = [Counter() for _ in range(CLASSES)]
    problems, missing = Problems(), set[str]()
    for record in records:
        timeline = timelines.get(record.video_id)
        if timeline is None:
            if record.video_id not in missing:
                fix = "give annotations of the same videos as the timelines"
                problems.add(f"video {record.video_id}", "has queries and no timeline", fix)
            missing.add(record.video_id)
            continue
        content = content_words(record.sentence, words)
        if not content or not record.moments or not len(timeline.classes):
            continue
        overlaps = timeline.overlaps(*record.moments[0])
        if not overlaps.max() > 0:
            continue
        best = np.unique(timeline.classes[overlaps >= overlaps.max() - 1e-6])
        vector = np.mean([words.vectors[words.index[word]] for word in content], axis=0)
        for action in best:
            sums[action] += vector / len(best)
            weights[action] += 1 / len(best)
            counts[action].update(content)
    problems.raise_if_any()
    if not weights.any():
        problems.add("timeline prototypes", "no training query has a content word with a vector", "check --words")
        raise DataError(problems)
    known = weights > 0
    means = sums / np.maximum(weights, 1e-12)[:, None]
    center = means[known].mean(axis=0)
    random = generator(seed, "prototypes").standard_normal((CLASSES, config.dim))
    vectors = look(means - center, known, random, config, seed)
    return Prototypes(vectors, weights.round(2), _labels(counts), center)


def content_words(sentence: str, words: WordVectors) -> list[str]:
    """The words of a sentence that say something about the action and have a vector."""
    return [word for word in tokenize(sentence) if word not in _EMPTY and word in words]


def look(meanings: np.ndarray, known: np.ndarray, random: np.ndarray, config: TimelineConfig, seed: int) -> np.ndarray:
    """What things look like: float32 (things, dim), length 1; in part as their meaning says, in part by chance.

    meanings: (things, words' dim) minus the center; known: (things,) whether there is one; random: (things, dim).
    """
    project = generator(seed, "projection").standard_normal((meanings.shape[1], config.dim))
    semantic = np.where(known[:, None], meanings @ project, 0.0)
    share = np.where(known, config.semantic_share, 0.0)[:, None]
    vectors = np.sqrt(share) * _unit(semantic) + np.sqrt(1 - share) * _unit(random)
    return _unit(vectors).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _labels(counts: list[Counter[str]]) -> tuple[str, ...]:
    """Two words that an action's queries use more than the others' do."""
    total = Counter[str]()
    for count in counts:
        total.update(count)
    everything = max(sum(total.values()), 1)
    labels = []
    for count in counts:
        mine = max(sum(count.values()), 1)
        telling = {word: n * np.log(n * everything / (mine * total[word])) for word, n in count.items()}
        labels.append(" ".join(sorted(telling, key=lambda word: (-telling[word], word))[:2]))
    return tuple(labels)
