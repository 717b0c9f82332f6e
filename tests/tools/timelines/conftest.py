"""Three small videos with their actions, queries about two of them, and word vectors."""

from __future__ import annotations

import numpy as np

from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import WordVectors
from hero_plugin.integrations.tools.timelines import Timeline

WORDS = WordVectors(["opens", "door", "eats", "food", "sofa"], np.eye(5, 12, dtype=np.float32))


def timeline(video: str, duration: float, *actions: tuple[int, float, float]) -> Timeline:
    table = np.array(actions, dtype=np.float64).reshape(-1, 3)
    return Timeline(video, duration, table[:, 0].astype(np.int64), table[:, 1], table[:, 2])


TIMELINES = {
    "A": timeline("A", 20.0, (8, 2.0, 6.0), (61, 10.0, 18.0)),
    "B": timeline("B", 12.3, (8, 0.0, 5.0), (30, 6.0, 12.3)),
    "C": timeline("C", 90.0),
}
RECORDS = [
    Record("A_0", "A", "a person opens the door.", ((2.0, 6.0),), 20.0),
    Record("A_1", "A", "person eats food", ((10.5, 18.0),), 20.0),
    Record("B_0", "B", "opens a door", ((0.0, 5.0),), 12.3),
    Record("B_1", "B", "the person is the one", ((6.0, 12.0),), 12.3),  # nothing but empty words
]
