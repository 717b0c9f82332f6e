"""What the bridge mixes words of, by name."""

from __future__ import annotations

import numpy as np
import pytest

from hero_plugin.integrations.data.words import Vocabulary, WordVectors
from hero_plugin.integrations.training.word_bridge import mixtures


def test_mixtures_name_trained_words_alone_greatest_share_first():
    names = ["zebra", "box", "crate", "door", "chest"]
    rows = np.array([[0, 0, 1], [0, 2, 0], [0.6, 0.8, 0], [1, 0, 0], [0.6, 0.79, 0]], np.float32)
    known = Vocabulary(("door", "box", "lost", "chest"), trained=3, counts={"door": 3, "box": 1, "lost": 5})
    crate, zebra = mixtures(["crate", "zebra"], WordVectors(names, rows), known)
    assert list(crate) == ["box", "door"]  # not the nearer chest, which training never had
    share = 1 / (1 + 3 * np.exp(-2))  # cosines 0.8 and 0.6 at temperature 0.1, said once and three times
    assert crate == pytest.approx({"box": share, "door": 1 - share})
    assert zebra == {}
