"""Features of videos that two people described: what the one wrote is shown, what the other wrote is the query.

ActivityNet has no action timelines, but a third of its captioned videos were described twice, independently. So a
model that was trained on Charades' timeline features can be tested on other videos, in another vocabulary, without a
query's own words ever being in the features.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise

import numpy as np

from hero_plugin.integrations.data import Record, WordVectors
from hero_plugin.integrations.scoring.metrics import grounding_scores
from hero_plugin.integrations.tools.timelines import render
from hero_plugin.integrations.tools.timelines.render import Prototypes, Renderer, Timeline


def two_writers(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Return the queries of the first and those of the second person, of the videos that certainly have two.

    In ActivityNet Captions and in ActivityNet-CD the sentences of a person follow one another in time, and all but a
    person's first one begin with a space; a video has two people where there are two such firsts and time goes back at
    the second and nowhere else. Others are left out: of one person, of more, or of an unclear number. ``records``
    are an ActivityNet file's as ``read_annotations`` gives them, a video's together and in order.
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
    records: Sequence[Record], actions: Renderer, words: WordVectors
) -> tuple[dict[str, Timeline], Renderer]:
    """Return the timelines of the records' videos, and what renders them with one prototype per record.

    A sentence looks as its content words do in the space of the prototypes of ``actions``, by the same projection and
    around the same mean; its random half is its own. So clips rendered from both have a common meaning.
    """
    config, seed, prototypes = actions.config, actions.seed, actions.prototypes
    meanings = sentence_meanings(records, prototypes, words)
    content = [render.content_words(record.sentence, words) for record in records]
    random = render.generator(seed, "descriptions").standard_normal((len(records), config.dim))
    vectors = render.look(meanings, np.array([bool(each) for each in content]), random, config, seed)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        rows[record.video_id].append(row)
    moments, durations = _moments(records)
    timelines = {
        video: Timeline(video, float(durations[mine[0]]), np.array(mine), *moments[mine].T)
        for video, mine in rows.items()
    }
    labels = tuple(" ".join(each[:2]) for each in content)
    looks = Prototypes(vectors, np.ones(len(records)), labels, prototypes.center)
    return timelines, Renderer(looks, config, seed)


def sentence_meanings(records: Sequence[Record], prototypes: Prototypes, words: WordVectors) -> np.ndarray:
    """Return what sentences mean, (records, words' dim): the mean of their content words, less the center; or 0."""
    meanings = np.zeros((len(records), words.dim))
    for row, record in enumerate(records):
        if content := render.content_words(record.sentence, words):
            meanings[row] = render.mean_vector(content, words) - prototypes.center
    return meanings


def _goes_on(query: Record) -> bool:
    """Return whether the sentence is not its writer's first."""
    return str(query.extra.get("raw_sentence", query.sentence)).startswith(" ")


_STEPS = 20  # where the constant answer may begin and end: twentieths of a video


def reach(
    asked: Sequence[Record],
    meanings: np.ndarray,
    timelines: Mapping[str, Timeline],
    described: np.ndarray,
    trained: Sequence[Record],
) -> dict[str, dict[str, float]]:
    """Return the scores that can be reached, by who answers.

    * "one answer": the same part of every video, the one that is right most often on the training queries;
    * "by the words": the moment of the described sentence whose words are nearest (cosine);
    * "by the moment": that of the described sentence whose moment overlaps best. More cannot be seen.

    ``meanings`` (asked, words' dim) are those of the queries, ``described`` (sentences, words' dim) those of the
    described sentences, in the rows that the timelines' classes name.
    """
    truth, durations = _moments(asked)
    known, lengths = _moments(trained)

    def right(part: tuple[float, float]) -> tuple[float, float]:
        scores = grounding_scores(np.outer(lengths, part), known)
        return scores["R1@0.5"], scores["mIoU"]

    usual = max(((a / _STEPS, b / _STEPS) for a in range(_STEPS) for b in range(a + 1, _STEPS + 1)), key=right)
    read: list[tuple[float, float]] = []
    seen: list[tuple[float, float]] = []
    for query, meaning in zip(asked, meanings, strict=True):
        timeline = timelines[query.video_id]
        sentences = described[timeline.classes]
        nearness = sentences @ meaning / np.maximum(np.linalg.norm(sentences, axis=1), 1e-12)
        for answers, scores in ((read, nearness), (seen, timeline.overlaps(*query.moments[0]))):
            best = int(np.argmax(scores))
            answers.append((timeline.starts[best], timeline.ends[best]))
    one = f"one answer ({100 * usual[0]:.0f} to {100 * usual[1]:.0f} % of the video)"
    return {
        one: grounding_scores(np.outer(durations, usual), truth),
        "by the words": grounding_scores(np.array(read), truth),
        "by the moment": grounding_scores(np.array(seen), truth),
    }


def _moments(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first moment (records, 2) and the video's duration (records,) of each."""
    moments = np.array([record.moments[0] for record in records], dtype=np.float64)
    return moments, np.array([record.duration for record in records])
