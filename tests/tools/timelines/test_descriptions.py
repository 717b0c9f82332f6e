"""Videos that two people described: who wrote what, what is rendered from it, and what can be reached."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.features import open_features
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import parse
from hero_plugin.integrations.tools.timelines import Renderer, TimelineConfig, build_prototypes
from hero_plugin.integrations.tools.timelines.cli import DescriptionsConfig, descriptions
from hero_plugin.integrations.tools.timelines.descriptions import (
    described_timelines,
    reach,
    sentence_meanings,
    two_writers,
)
from tests.resources import shared
from tests.tools.timelines.conftest import RECORDS, TIMELINES, WORDS

CLEAN = TimelineConfig(dim=256, noise=0.0, semantic_share=1.0)
TWICE = {
    "duration": 20.0,
    "timestamps": [[0, 8], [8, 20], [0, 9], [9, 19]],
    "sentences": ["He opens the door.", " He eats food.", "The door opens.", " Then food is eaten; a man eats."],
}
ONCE = {"duration": 10.0, "timestamps": [[0, 4], [4, 9]], "sentences": ["He opens the door.", " He eats."]}
ASIDE = {"duration": 9.0, "timestamps": [[3, 8], [0, 9], [0, 5]], "sentences": ["A door.", " He eats.", "He opens it."]}


def write(path, videos):
    path.write_text(json.dumps(videos), "utf-8")
    return path


@pytest.fixture
def annotations(tmp_path):
    return write(tmp_path / "anet.json", {"v_twice": TWICE, "v_once": ONCE, "v_aside": ASIDE})


def test_only_videos_that_certainly_have_two_writers_count(annotations):
    seen, asked = two_writers(read_annotations(annotations))
    assert [query.query_id for query in seen] == ["v_twice_0", "v_twice_1"]
    assert [query.query_id for query in asked] == ["v_twice_2", "v_twice_3"]


def test_another_data_set_has_no_two_writers():
    pairs = [
        Record(f"{video}_{place}", video, "opens", ((1.0 - place, 3.0),), 9.0) for video in "AB" for place in (0, 1)
    ]
    assert two_writers(pairs) == ([], [])


def test_a_sentence_looks_like_an_action_that_is_described_alike(annotations):
    prototypes = build_prototypes(RECORDS, TIMELINES, WORDS, CLEAN)
    seen, _ = two_writers(read_annotations(annotations))
    timelines, renderer = described_timelines(seen, Renderer(prototypes, CLEAN), WORDS)
    opens, eats = 8, 61  # of RECORDS
    assert renderer.prototypes.vectors[0] @ prototypes.vectors[opens] > 0.99
    assert renderer.prototypes.vectors[1] @ prototypes.vectors[eats] > 0.99
    clips = renderer(timelines["v_twice"]) @ prototypes.vectors[[opens, eats]].T
    times = (np.arange(len(clips)) + 0.5) / 2
    assert (clips.argmax(1) == (times > 8)).all()


def test_what_can_be_reached(annotations):
    prototypes = build_prototypes(RECORDS, TIMELINES, WORDS, CLEAN)
    seen, asked = two_writers(read_annotations(annotations))
    timelines, _ = described_timelines(seen, Renderer(prototypes, CLEAN), WORDS)
    meanings = [sentence_meanings(part, prototypes, WORDS) for part in (asked, seen)]
    trained = [Record("x", "x", "he eats", ((0.0, 5.0),), 10.0)]
    scores = reach(asked, meanings[0], timelines, meanings[1], trained)
    assert list(scores) == ["one answer (0 to 50 % of the video)", "by the words", "by the moment"]
    assert [each["R1@0.7"] for each in scores.values()] == [50.0, 100.0, 100.0]
    assert scores["by the moment"]["mIoU"] == pytest.approx(100 * (8 / 9 + 10 / 12) / 2)
    mixed_up = reach(asked[::-1], meanings[0], timelines, meanings[1], trained)
    assert mixed_up["by the words"]["R1@0.7"] == 0


def command(flags):
    descriptions(parse(DescriptionsConfig, "data descriptions", flags))


def test_the_command(tmp_path, annotations, capsys):
    train = write(
        tmp_path / "train.json",
        {"A": {"timestamps": [[2, 6]], "sentences": ["a person opens the door."], "video_duration": 20.0}},
    )
    actions = {"duration": 20.0, "actions": [[8, 2.0, 6.0]]}
    timelines = write(tmp_path / "timelines.json", {"A": actions})
    np.savez(tmp_path / "words.npz", words=np.array(WORDS.words), vectors=WORDS.vectors)
    output, queries = tmp_path / "features", tmp_path / "asked.json"
    flags = ["--annotations", annotations, "--timelines", timelines, "--train", train]
    flags += ["--words", tmp_path / "words.npz", "--output", output, "--queries", queries, "--dim", 16]
    flags = [str(flag) for flag in flags]
    command(flags)
    out = capsys.readouterr().out
    assert "1 videos rendered from 2 sentences, 0 were there" in out
    assert "2 queries of other people" in out and "by the words" in out
    assert open_features(output)["v_twice"].shape == (40, 16)
    assert [record.sentence for record in read_annotations(queries)] == [
        each.strip() for each in TWICE["sentences"][2:]
    ]
    assert "what one person wrote" in json.loads((output / "manifest.json").read_text())["what"]
    with pytest.raises(UserError, match="exists already"):
        command(flags)
    command([*flags, "--resume"])
    assert "0 videos rendered from 2 sentences, 1 were there" in capsys.readouterr().out
    before = annotations.read_bytes()
    with pytest.raises(UserError, match="is read: name another"):
        command([str(annotations) if flag == str(queries) else flag for flag in flags] + ["--resume"])
    assert annotations.read_bytes() == before
    one = write(tmp_path / "one.json", {"v_once": ONCE})
    with pytest.raises(UserError, match="no video that two people described"):
        command([str(one) if flag == str(annotations) else flag for flag in flags] + ["--resume"])


def test_activitynet_cd():
    records = read_annotations(shared("activitynet_cd", "anet_test_iid.json"), on_broken="drop")
    seen, asked = two_writers(records)
    assert len(seen) == 721 and len(asked) == 735
    assert {query.video_id for query in seen} == {query.video_id for query in asked}
    assert not {query.query_id for query in seen} & {query.query_id for query in asked}
