"""Features of videos that two people described: what the one wrote is to be seen, what the other wrote is asked.

ActivityNet has no action timelines, but a third of its captioned videos were described twice, independently. So a
model that was trained on Charades' timeline features can be asked about other videos, in another vocabulary, without
a query's own words ever being in the features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise

import numpy as np

from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import WordVectors
from hero_plugin.integrations.scoring.metrics import grounding_scores
from hero_plugin.integrations.tools.timelines.render import (
    Prototypes,
    Timeline,
    TimelineConfig,
    content_words,
    generator,
    look,
)


def two_writers(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """The queries of the first and those of the second person, of the videos that certainly have two.

    In ActivityNet Captions and in ActivityNet-CD the sentences of a person follow one another in time, and all but a
    person's first one begin with a space; a video has two people where there are two such firsts and time goes back at
    the second and nowhere else. Others are left out: of one person, of more, or not to be told.

    records: of an ActivityNet file as `read_annotations` gives them, a video's together and in order.
    """
    records = list(records)
    seen: list[Record] = []
    asked: list[Record] = []
    if sum(map(_goes_on, records)) < len(records) / 4:  # another data set, which has no such spaces
        return seen, asked
    for _, group in groupby(records, key=lambda record: record.video_id):
        queries = list(group)
        firsts = [place for place, query in enumerate(queries) if not _goes_on(query)]
        starts = [query.moments[0][0] for query in queries]
        back = [place for place, (before, start) in enumerate(pairwise(starts), 1) if start < before]
        if len(firsts) == 2 and firsts[0] == 0 and back == firsts[1:]:
            seen += queries[: firsts[1]]
            asked += queries[firsts[1] :]
    return seen, asked


def described_timelines(
    records: Sequence[Record],
    prototypes: Prototypes,
    words: WordVectors,
    config: TimelineConfig | None = None,
    *,
    seed: int = 0,
) -> tuple[dict[str, Timeline], Prototypes]:
    """What `render_video` needs to show what the records describe: their videos' timelines, and a prototype a record.

    A sentence looks as its content words do in the space of `prototypes`, by the same projection and around the same
    mean; its random half is its own. So clips rendered from both have a common meaning.

    records: of the people who describe, several a video; prototypes: of the training videos' actions; seed: theirs.
    """
    config = config or TimelineConfig()
    meanings = sentence_meanings(records, prototypes, words)
    content = [content_words(record.sentence, words) for record in records]
    random = generator(seed, "descriptions").standard_normal((len(records), config.dim))
    vectors = look(meanings, np.array([bool(each) for each in content]), random, config, seed)
    rows: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        rows.setdefault(record.video_id, []).append(place)
    timelines = {
        video: Timeline(video, records[places[0]].duration, np.array(places), *_moments(records, places))
        for video, places in rows.items()
    }
    labels = tuple(" ".join(each[:2]) for each in content)
    return timelines, Prototypes(vectors, np.ones(len(records)), labels, prototypes.center)


def sentence_meanings(records: Sequence[Record], prototypes: Prototypes, words: WordVectors) -> np.ndarray:
    """What sentences mean, (records, words' dim): the mean of their content words from the prototypes' center; or 0."""
    meanings = np.zeros((len(records), words.dim))
    for place, record in enumerate(records):
        content = content_words(record.sentence, words)
        if content:
            vectors = [words.vectors[words.index[word]] for word in content]
            meanings[place] = np.mean(vectors, axis=0) - prototypes.center
    return meanings


def _goes_on(query: Record) -> bool:
    return str(query.extra.get("raw_sentence", query.sentence)).startswith(" ")


def _moments(records: Sequence[Record], places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    starts, ends = np.array([records[place].moments[0] for place in places], dtype=np.float64).T
    return starts, ends


# What described videos let be reached: by who sees nothing, by who reads, by who knows the moment.


_STEPS = 20  # the edges of the constant answer: twentieths of a video


def reach(
    asked: Sequence[Record],
    meanings: np.ndarray,
    timelines: Mapping[str, Timeline],
    described: np.ndarray,
    trained: Sequence[Record],
) -> dict[str, dict[str, float]]:
    """R1@0.3, R1@0.5, R1@0.7 and mIoU in percent, by who answers.

    * "one answer": the same part of every video, the one that is right most often on the training queries;
    * "by the words": the moment of the described sentence whose words are nearest (cosine);
    * "by the moment": that of the described sentence whose moment overlaps best. More cannot be seen.

    meanings: (asked, words' dim); described: (sentences, words' dim), rows as the timelines' classes name them.
    """
    truth, durations = _action_moments(asked)
    known, lengths = _action_moments(trained)
    grid = [(a / _STEPS, b / _STEPS) for a in range(_STEPS) for b in range(a + 1, _STEPS + 1)]
    usual = max(grid, key=lambda part: _rank(grounding_scores(np.outer(lengths, part), known)))
    read, seen = [], []
    for query, meaning in zip(asked, meanings, strict=True):
        timeline = timelines[query.video_id]
        sentences = described[timeline.classes]
        nearness = sentences @ meaning / np.maximum(np.linalg.norm(sentences, axis=1), 1e-12)
        for answers, scores in ((read, nearness), (seen, timeline.overlaps(*query.moments[0]))):
            best = int(np.argmax(scores))
            answers.append((timeline.starts[best], timeline.ends[best]))
    return {
        f"one answer ({100 * usual[0]:.0f} to {100 * usual[1]:.0f} % of the video)": grounding_scores(
            np.outer(durations, usual), truth
        ),
        "by the words": grounding_scores(np.array(read), truth),
        "by the moment": grounding_scores(np.array(seen), truth),
    }


def _rank(scores: Mapping[str, float]) -> tuple[float, float]:
    return scores["R1@0.5"], scores["mIoU"]


def _action_moments(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([record.moments[0] for record in records]), np.array([record.duration for record in records])
