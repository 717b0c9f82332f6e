"""A small world for the builder: queries, a lexicon with the mistakes that real ones make, vectors by meaning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hero_plugin.integrations.cli import main
from hero_plugin.integrations.tools.vocab.english import PACKAGES
from hero_plugin.integrations.tools.vocab.meaning import find_wordnet

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


def need_packages() -> None:
    for name in PACKAGES:
        pytest.importorskip(name, reason=f'{name} is not installed: pip install "hero-plugin[vocab]"')


def need_wordnet() -> Path:
    need_packages()
    folder = find_wordnet()
    if folder is None:
        pytest.skip("no WordNet on this machine: Debian's wordnet-base or nltk's data")
    return folder


def write_world(folder: Path) -> Path:
    """train.txt, test.json, lexicon.json and words.npz."""
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
    return folder


def vocab(*words: object) -> int:
    return main(["vocab", *map(str, words)])


def build(folder: Path, *more: object, output: str = "ov.json", input: str = "test.json") -> int:
    """Build from the small world, without WordNet, which a machine may lack."""
    files = ("--input", folder / input, "--train", folder / "train.txt", "--words", folder / "words.npz")
    return vocab(
        "build", *files, "--output", folder / output, "--lexicon", folder / "lexicon.json", "--no-use-wordnet", *more
    )
