"""Small annotation files and hypothesis strategies that several tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hero_plugin.integrations.data.records import Record

STA = "3MSZA 24.3 30.4##person turn a light on.\nAMT7R 4.3 12.5##a person is putting a picture onto the wall.\n"
DURATIONS = {"3MSZA": 30.96, "AMT7R": 20.0}

CHARADES_CD = {
    "QM4AD": {
        "framestamps": [[283, 374]],
        "decode_fps": 16.0,
        "encoded_sentences": [[1, 38, 3, 18, 23]],
        "sentences": ["person put the glass down"],
        "video_fps": -1.0,
        "timestamps": [[17.7, 23.4]],
        "video_duration": 23.5625,
    }
}

CAPTIONS = {
    "v_a": {"duration": 82.73, "timestamps": [[0.83, 19.86], [17, 60.81]], "sentences": ["One.", "  Two\tthings. "]},
    "v_b": {"duration": 10, "timestamps": [[0, 10]], "sentences": ["Three."]},
}

CHARADES_CG = {
    "AO8RW": {
        "sentences": ["a person is putting a book on a shelf."],
        "timestamps": [[0.0, 6.9]],
        "duration": 33.67,
        "novels": [{"v-adv": [["put", "on"]]}],
    }
}

QVHIGHLIGHTS = [
    {
        "qid": 2579,
        "query": "A girl cooks.",
        "duration": 150,
        "vid": "NUsG9BgSes0_210.0_360.0",
        "relevant_clip_ids": [5, 6, 9],
        "saliency_scores": [[1, 1, 2], [4, 3, 2], [2, 2, 2]],
        "relevant_windows": [[10, 14], [18, 20]],
    },
    {"qid": "12", "query": "Without labels", "duration": 148.5, "vid": "b", "domain": "dog"},
]


def write(folder: Path, name: str, data: Any) -> Path:
    """A file of text, of JSON, or of JSON lines (a list)."""
    path = folder / name
    if isinstance(data, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    else:
        path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


_sentences = st.lists(st.text("abcdefghij é'-,.#", min_size=1, max_size=8), min_size=1, max_size=5).map(
    lambda words: " ".join("".join(words).split())
)
_seconds = st.floats(0, 500, allow_nan=False).map(lambda x: round(x, 2))


@st.composite
def moments(draw: st.DrawFn, duration: float) -> tuple[float, float]:
    """(start, end) inside a video."""
    start = draw(_seconds.filter(lambda x: x < duration))
    return start, draw(st.floats(start, duration, exclude_min=True).filter(lambda x: x > start))


@st.composite
def record_lists(draw: st.DrawFn, windows: int = 1, ids: bool = False) -> list[Record]:
    """Records grouped by video, as all the formats can hold them; with `windows` moments at most."""
    records = []
    for video in draw(st.lists(st.text("abcXYZ0189_-", min_size=1, max_size=6), min_size=1, max_size=4, unique=True)):
        duration = draw(st.floats(0.5, 500).map(lambda x: round(x, 3)))
        for position in range(draw(st.integers(1, 3))):
            sentence = draw(_sentences.filter(bool))
            count = draw(st.integers(0 if windows > 1 else 1, windows))
            found = tuple(draw(moments(duration)) for _ in range(count))
            query = f"{video}_{position}" if not ids else str(len(records))
            records.append(Record(query, video, sentence, found, duration))
    return records
