"""The record type that every annotation format is read into: a sentence, its video, its moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["REWORDED", "Record", "clean_sentence"]

REWORDED = "reworded"
"""Key of ``Record.extra`` under which a reworded query links to the original: every format carries it along."""


@dataclass(frozen=True, slots=True)
class Record:
    """One query of a temporal sentence grounding data set.

    Attributes:
        query_id: Unique within a file. Formats without ids get ``VIDEO_k``, k counting the video's sentences from 0.
        video_id: Name of the video, as in the file and in feature stores.
        sentence: The query, white space tidied (one blank between words, none around).
        moments: (start, end) in seconds, start < end; one for most data sets, several for QVHighlights, () for a
            query without labels.
        duration: Length of the video in seconds.
        split: Any name: "train", "test-ood", ...
        saliency: (clip index, annotators' scores), for QVHighlights and what is converted to it.
        extra: What the file carried and no field above holds, so that writing it back loses nothing.
            ``extra["video"]`` holds what belongs to the video rather than to the sentence.
    """

    query_id: str
    video_id: str
    sentence: str
    moments: tuple[tuple[float, float], ...]
    duration: float
    split: str = ""
    saliency: tuple[tuple[int, tuple[float, ...]], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Record:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def clean_sentence(raw: str) -> str:
    """Tidy white space: ActivityNet Captions has leading blanks, tabs and line breaks inside sentences."""
    return " ".join(raw.split())
