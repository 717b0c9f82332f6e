"""The commands of the page about published features run on small files of those names, keys and widths."""

from __future__ import annotations

import json
import re
import shlex
from string import Template

import numpy as np
import pytest

from hero_plugin.integrations.cli import main as command
from tests.docs.pages import DOCS

PAGE = DOCS / "guide" / "published_features.md"
WORDS = ("a", "person", "opens", "the", "door", "dog", "jumps", "up")
SENTENCES = ("a person opens the door", "the dog jumps up")
VIDEOS = {"train": 4, "val": 2, "test": 2}
SMALL = {
    "emb": "--dim 16 --hero.num-heads 4",
    "qd_detr": "--hidden-dim 16 --nheads 4 --dim-feedforward 32 --enc-layers 1 --dec-layers 1 --hero.num-heads 4",
}
random = np.random.default_rng(0)


def commands_of(page):
    """Yield the page's commands in order, as a shell would expand them."""
    for block in re.findall(r"^```\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
        values = dict(re.findall(r'^(\w+)="(.*?)"', block, flags=re.DOTALL | re.MULTILINE))
        rest = re.sub(r'^\w+=".*?"\n', "", block, flags=re.DOTALL | re.MULTILINE)
        for line in (
            Template(rest)
            .substitute({name: " ".join(text.split()) for name, text in values.items()})
            .replace("\\\n", "")
            .splitlines()
        ):
            yield shlex.split(line)


def save(folder, name, width, rows, key=None):
    folder.mkdir(parents=True, exist_ok=True)
    array = random.standard_normal((rows, width)).astype(np.float32)
    if key is None:
        np.save(folder / f"{name}.npy", array)
    else:
        np.savez(folder / f"{name}.npz", **{key: array})


def lines(path, records):
    path.write_text("".join(json.dumps(each) + "\n" for each in records))


@pytest.fixture
def downloads(tmp_path):
    """A folder with every file that the page names."""
    features = tmp_path / "features"
    features.mkdir()
    vectors = {word: " ".join(f"{value:.3f}" for value in random.standard_normal(300)) for word in WORDS}
    (features / "glove.840B.300d.txt").write_text("".join(f"{word} {each}\n" for word, each in vectors.items()))
    activitynet, tacos_folder = tmp_path / "activitynet", tmp_path / "tacos"
    activitynet.mkdir()
    tacos_folder.mkdir()
    durations, query = {}, 0
    for name, count in VIDEOS.items():
        charades, captions, tacos, highlights, release = [], {}, {}, [], []
        for number in range(count):
            video, seconds = f"{name.upper()}{number}", 30.0
            durations[video] = {"subset": "training", "duration": seconds, "actions": []}
            charades += [f"{video} 4.0 12.0##{each}" for each in SENTENCES]
            about = {"duration": 80.0, "timestamps": [[10.0, 40.0], [50.0, 70.0]], "sentences": list(SENTENCES)}
            captions[f"v_{video}"] = about
            frames = {"fps": 10.0, "num_frames": 2000, "timestamps": [[100, 400], [500, 1900]]}
            tacos[f"s{video}.avi"] = {**frames, "sentences": list(SENTENCES)}
            save(features / "charades" / "new", video, 1024, 30)
            save(features / "activitynet" / "new", f"v_{video}", 1024, 140)
            save(features / "tacos" / "new", f"s{video}", 1024, 150)
            save(features / "vgg_features" / "rgb_features", video, 4096, 40)
            clip = f"{video}_0.0_30.0"
            for folder, width in (("slowfast", 2304), ("clip", 512)):
                save(features / f"{folder}_features", clip, width, 15, "features")
                save(features / "Charades" / folder, video, width, 30, "features")
            for sentence in SENTENCES:
                one = {"query": sentence, "relevant_windows": [[4, 12]]}
                release.append({"qid": query, "duration": 30.0, "vid": video, **one})
                scored = {"relevant_clip_ids": [2, 3, 4, 5], "saliency_scores": [[4, 3, 2]] * 4}
                highlights.append({"qid": query, "duration": 30, "vid": clip, **one, **scored})
                for folder in (features / "clip_text_features", features / "Charades" / "clip_text"):
                    save(folder, f"qid{query}", 512, 7, "last_hidden_state")
                query += 1
        (tmp_path / f"charades_sta_{name}.txt").write_text("\n".join(charades) + "\n")
        file = {"train": "train", "val": "val_1", "test": "val_2"}[name]
        (activitynet / f"{file}.json").write_text(json.dumps(captions))
        (tacos_folder / f"{name}.json").write_text(json.dumps(tacos))
        lines(tmp_path / f"charades_{name}_release.jsonl", release)
        lines(tmp_path / f"highlight_{name}_release.jsonl", highlights)
    (tmp_path / "charades.json").write_text(json.dumps(durations))
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_runs(downloads, monkeypatch):
    monkeypatch.chdir(downloads)
    ran = 0
    for words in commands_of(PAGE):
        assert words[0] == "hero-plugin", words
        small = []
        if words[1] == "train":
            small = ["--epochs", "1", "--batch-size", "4", "--threads", "1", "--device", "cpu", "--figure-queries", "0"]
            sizes = SMALL[words[2]]
            small += (sizes.partition(" --hero")[0] if "--base-only" in words else sizes).split()
        assert command([*words[1:], *small]) == 0, words
        ran += 1
    assert ran == 19 and len(list(downloads.glob("runs/*/*/best.pt"))) == 12
