"""A small world for the builder: queries, a lexicon with the mistakes that real ones make, vectors by meaning."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hero_plugin.integrations.cli import main
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.english import PACKAGES
from hero_plugin.integrations.tools.vocab.meaning import WordNet, find_wordnet

TRAIN = """A 0 5##person puts a phone on the sofa.
A 6 9##a person opens the door.
B 0 5##she folds clothes and eats food.
"""
TEST = {
    "V1": {
        "framestamps": [[0, 80], [96, 144], [160, 200]],
        "decode_fps": 16.0,
        "encoded_sentences": [[1, 2], [3], [4]],
        "sentences": ["person puts a phone on the sofa", "the person opens a door", "person folds the clothes"],
        "video_fps": -1.0,
        "timestamps": [[0.0, 5.0], [6.0, 9.0], [10.0, 12.5]],
        "video_duration": 12.0,
    },
    "V2": {
        "framestamps": [[0, 16]],
        "decode_fps": 16.0,
        "encoded_sentences": [[5]],
        "sentences": ["a person takes a phone"],
        "video_fps": -1.0,
        "timestamps": [[0.0, 1.0]],
        "video_duration": 20.0,
    },
}
LEXICON = {
    "phone": [("telephone", "synonym", 0, "n"), ("sound", "synonym", 1, "n"), ("fone", "synonym", 0, "n")],
    "clothes": [("apparel", "synonym", 0, "n")],
    "person": [("somebody", "synonym", 0, "n"), ("organism", "hypernym", 0, "n")],
    "opens": [("openings", "synonym", 0, "n")],
    "put": [("seting", "synonym", 0, "v"), ("place", "synonym", 0, "v")],
    "door": [("washington's region", "synonym", 0, "n")],
    "sofa": [("couch", "synonym", 0, "n")],
}
_MEANINGS = (
    ["phone", "telephone", "fone"],
    ["clothes", "apparel"],
    ["person", "somebody"],
    ["opens", "openings"],
    ["puts", "put", "place", "places", "seting"],
    ["door"],
    ["sofa", "couch"],
    ["sound"],
    ["organism"],
    ["takes"],
    ["folds"],
)


@dataclass(frozen=True)
class World:
    """A folder with train.txt, test.json, lexicon.json and words.npz."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @classmethod
    def write(cls, folder: Path) -> World:
        (folder / "train.txt").write_text(TRAIN)
        (folder / "test.json").write_text(json.dumps(TEST))
        keys = ("word", "relation", "sense", "pos")
        lexicon = {word: [dict(zip(keys, entry, strict=True)) for entry in found] for word, found in LEXICON.items()}
        (folder / "lexicon.json").write_text(json.dumps(lexicon))
        draw = np.random.default_rng(0)
        directions = np.linalg.qr(draw.normal(size=(24, 24)))[0]
        words = [word for group in _MEANINGS for word in group]
        rows = [directions[place] for place, group in enumerate(_MEANINGS) for _ in group]
        vectors = np.array(rows) + 0.05 * draw.normal(size=(len(rows), 24))
        np.savez(folder / "words.npz", words=np.array(words), vectors=vectors.astype(np.float32))
        return cls(folder)

    def build(self, *more: object, output: str = "ov.json", input: str = "test.json") -> int:
        """Build without WordNet, which a machine may lack."""
        files = ("--input", self / input, "--train", self / "train.txt", "--words", self / "words.npz")
        lexicon = ("--lexicon", self / "lexicon.json", "--no-use-wordnet")
        return run_vocab("build", *files, "--output", self / output, *lexicon, *more)


def run_vocab(*words: object) -> int:
    return main(["vocab", *map(str, words)])


@pytest.fixture
def vocab() -> Callable[..., int]:
    """``hero-plugin vocab`` with the words given, to its exit status."""
    return run_vocab


def need_packages() -> None:
    for name in PACKAGES:
        pytest.importorskip(name, reason=f'{name} is not installed: pip install "hero-plugin[vocab]"')


@pytest.fixture(scope="session")
def packages() -> None:
    need_packages()


@pytest.fixture(scope="session")
def wordnet(packages: None) -> WordNet:
    try:
        return WordNet(find_wordnet())
    except UserError:
        pytest.skip("no WordNet on this machine: Debian's wordnet-base or nltk's data")


@pytest.fixture
def plain_world(tmp_path: Path) -> World:
    """The small world, where packages may be missing."""
    return World.write(tmp_path)


@pytest.fixture
def world(plain_world: World, packages: None) -> World:
    return plain_world
