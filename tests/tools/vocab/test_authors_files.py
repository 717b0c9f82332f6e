"""Charades-OV and ActivityNet-OV as their authors may publish them: told by the content, whatever the name."""

from __future__ import annotations

import json

import pytest

from hero_plugin.integrations.data.annotations import read_annotations, read_sentences
from hero_plugin.integrations.data.checks import ReadReport

STA = "AB12C 24.3 30.4##human flips a luminaire on.\nAB12C 1.0 2.5##an individual shuts the wardrobe.\n"
CD = {
    "AB12C": {
        "framestamps": [[388, 486]],
        "decode_fps": 16.0,
        "encoded_sentences": [[1, 2]],
        "sentences": ["human flips a luminaire on"],
        "video_fps": -1.0,
        "timestamps": [[24.3, 30.4]],
        "video_duration": 30.96,
    }
}
ACTIVITYNET = {
    "v_abc": {"video_duration": 82.7, "timestamps": [[0.8, 19.9], [17, 60.8]], "sentences": ["One.", " Two. "]}
}
TEXTS = {
    "text": (STA, "charades-sta", 2),
    "text, Windows line ends and a mark": ("\ufeff" + STA.replace("\n", "\r\n"), "charades-sta", 2),
    "text, tabs": (STA.replace(" 24.3 30.4", "\t24.3\t30.4"), "charades-sta", 2),
    "-CD JSON": (json.dumps(CD), "charades-cd", 1),
    "-CD JSON, indented": (json.dumps(CD, indent=2), "charades-cd", 1),
    "ActivityNet-CD JSON": (json.dumps(ACTIVITYNET), "charades-cd", 2),
    "ActivityNet Captions JSON": (json.dumps(ACTIVITYNET).replace("video_duration", "duration"), "captions", 2),
}


@pytest.mark.parametrize("name", ["ov.json", "ov.txt", "ov"])
@pytest.mark.parametrize("layout", TEXTS)
def test_layouts(tmp_path, layout, name):
    text, expected, number = TEXTS[layout]
    path = tmp_path / name
    path.write_bytes(text.encode())
    report = ReadReport()
    records = read_annotations(path, durations={"AB12C": 30.96}, report=report)
    assert report.format == expected and len(records) == number
    assert records[0].moments in (((24.3, 30.4),), ((0.8, 19.9),))
    assert [record.sentence for record in read_sentences(path)] == [record.sentence for record in records]


def test_sentences_need_no_moments(tmp_path):
    path = tmp_path / "ov.txt"
    path.write_text("A 9 1##ends before it starts\nB 0 1##fine\n")
    assert [record.sentence for record in read_sentences(path)] == ["ends before it starts", "fine"]
    with pytest.raises(FileNotFoundError):
        read_sentences(tmp_path / "none")
