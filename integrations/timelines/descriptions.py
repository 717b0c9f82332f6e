"""Features of videos that two people described: what the one wrote is to be seen, what the other wrote is asked.

ActivityNet has no action timelines, but a third of its captioned videos were described twice, independently. So a
model that was trained on Charades' timeline features can be asked about other videos, in another vocabulary, without
a query's own words ever being in the features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

import numpy as np

from hero_plugin.integrations.records import Record
from hero_plugin.integrations.timelines.config import TimelineConfig
from hero_plugin.integrations.timelines.prototypes import Prototypes, content_words, look
from hero_plugin.integrations.timelines.seeds import generator
from hero_plugin.integrations.timelines.timeline import Timeline
from hero_plugin.integrations.words import WordVectors

__all__ = ["described_timelines", "sentence_meanings", "two_writers"]


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
