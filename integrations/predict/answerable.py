"""Which queries can be answered, and what keeps the others from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping

from hero_plugin.integrations.annotations.checks import as_number
from hero_plugin.integrations.predict.query_file import Asked
from hero_plugin.integrations.problems import Problem
from hero_plugin.integrations.records import Record

_LENGTH = "add a duration to the query, or give --durations FILE or --clip-seconds SECONDS"


class Answerable:
    """Turns queries into records, or into what is wrong with them.

    videos: those that have features; written: whether a query, by its id and its video's, has features of its own,
        where the base reads such; clip_seconds: how long a clip is, for videos of unknown length, or None.
    """

    def __init__(
        self,
        videos: Container[str],
        tokenize: Callable[[str], list[str]],
        *,
        durations: Mapping[str, float] | None = None,
        clip_seconds: float | None = None,
        written: Callable[[str, str], bool] = lambda query, video: True,
        features: str = "the features",
    ) -> None:
        self.videos, self.tokenize, self.durations = videos, tokenize, durations or {}
        self.clip_seconds, self.written, self.features = clip_seconds, written, features

    def sentence(self, asked: Asked) -> Problem | None:
        """What is wrong with the words of a query."""
        if asked.wrong:
            return Problem(asked.where, asked.wrong, "correct or remove the query")
        if not self.tokenize(asked.sentence):
            return Problem(asked.where, f"no word in {asked.sentence!r}", "write a sentence, or remove the query")
        return None

    def __call__(self, asked: Asked) -> Record | Problem:
        """A record; its duration is NaN where the video's clips have yet to be counted."""
        problem = self.sentence(asked)
        if problem is not None:
            return problem
        if asked.video not in self.videos:
            named = f"no features of video {asked.video!r} in {self.features}" if asked.video else "names no video"
            return Problem(asked.where, named, "add them, or remove the query")
        if not self.written(asked.query_id, asked.video):
            return Problem(asked.where, f"no features of query {asked.query_id}", "add its file, or remove the query")
        raw = self.durations.get(asked.video) if asked.duration is None else asked.duration
        if raw is None:
            if self.clip_seconds is None:
                return Problem(asked.where, f"the length of video {asked.video} is not known", _LENGTH)
            return asked.record(math.nan)
        seconds = as_number(raw)
        if seconds is None or seconds <= 0:
            what = f"the video's duration must be a positive number of seconds, got {raw!r}"
            return Problem(asked.where, what, "correct or remove the query")
        return asked.record(seconds)
