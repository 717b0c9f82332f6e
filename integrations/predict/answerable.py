"""Check of queries: which can be answered, and why the others cannot."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping

from hero_plugin.integrations.annotations.checks import as_number
from hero_plugin.integrations.predict.query_file import Query
from hero_plugin.integrations.problems import Problem
from hero_plugin.integrations.records import Record

_LENGTH = "add a duration to the query, or give --durations FILE or --clip-seconds SECONDS"


class QueryValidator:
    """Turn queries into records, or into what is wrong with them.

    Args:
        videos: ids of the videos that have features.
        tokenize: sentence to words, as the run has it.
        durations: length of each video in seconds, where the query does not say it.
        clip_seconds: how long a clip lasts, for videos of unknown length.
        has_features: whether a query (by its id and its video's) has features of its own, where the base reads such.
        features: name of the features, for messages.
    """

    def __init__(
        self,
        videos: Container[str],
        tokenize: Callable[[str], list[str]],
        *,
        durations: Mapping[str, float] | None = None,
        clip_seconds: float | None = None,
        has_features: Callable[[str, str], bool] = lambda query, video: True,
        features: str = "the features",
    ) -> None:
        self.videos, self.tokenize, self.durations = videos, tokenize, durations or {}
        self.clip_seconds, self.has_features, self.features = clip_seconds, has_features, features

    def sentence(self, query: Query) -> Problem | None:
        """Return what is wrong with the words of a query, None if nothing is."""
        if query.wrong:
            return Problem(query.where, query.wrong, "correct or remove the query")
        if not self.tokenize(query.sentence):
            return Problem(query.where, f"no word in {query.sentence!r}", "write a sentence, or remove the query")
        return None

    def __call__(self, query: Query) -> Record | Problem:
        """Return a record, or what is wrong; its duration is NaN while the video's clips are not counted yet."""
        problem = self.sentence(query)
        if problem is not None:
            return problem
        if query.video not in self.videos:
            named = f"no features of video {query.video!r} in {self.features}" if query.video else "names no video"
            return Problem(query.where, named, "add them, or remove the query")
        if not self.has_features(query.query_id, query.video):
            return Problem(query.where, f"no features of query {query.query_id}", "add its file, or remove the query")
        raw = self.durations.get(query.video) if query.duration is None else query.duration
        if raw is None:
            if self.clip_seconds is None:
                return Problem(query.where, f"the length of video {query.video} is not known", _LENGTH)
            return query.record(math.nan)
        seconds = as_number(raw)
        if seconds is None or seconds <= 0:
            what = f"the video's duration must be a positive number of seconds, got {raw!r}"
            return Problem(query.where, what, "correct or remove the query")
        return query.record(seconds)
