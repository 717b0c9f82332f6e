"""Layouts that people's files have beside the four that are written: read rightly, or refused by name."""

from __future__ import annotations

import pickle

import pytest

from hero_plugin.integrations.data import read_annotations
from hero_plugin.integrations.support.errors import DataError
from tests.data import samples

NLQ = {"c1": {"timestamps": [[7, 17]], "exact_times": [[4.0, 9.0]], "sentences": ["A man runs."], "duration": 60.0}}
SNAG = {"c1": {"duration": 60.0, "fps": 30, "annotations": [{"segment": [4.0, 9.0], "sentence": "A man runs."}]}}
MAD = {"7": {"movie": "c1", "sentence": "A man runs.", "timestamps": [4.0, 9.0], "movie_duration": 60.0}}
TVR = [{"vid_name": "c1", "duration": 60.0, "ts": [4.0, 9.0], "desc": "A man runs.", "type": "v", "desc_id": 7}]
CONE = [
    {"query": "A man runs.", "query_id": "7", "duration": 60, "clip_id": "c1", "video_id": "v", "timestamps": [4, 9]}
]
CPL = '[["c1", 60.0, [4.0, 9.0], "A man runs.", ["man", "runs"]]]'


@pytest.mark.parametrize(
    ("data", "query"),
    [
        pytest.param(NLQ, "c1_0", id="VSLNet's NLQ, whose timestamps count features"),
        pytest.param(SNAG, "c1_0", id="SnAG"),
        pytest.param({"version": "1", "database": SNAG}, "c1_0", id="SnAG's database"),
        pytest.param(MAD, "7", id="MAD"),
        pytest.param(TVR, "7", id="TVR, one line"),
        pytest.param([*TVR, {**TVR[0], "desc_id": 8}], "7", id="TVR"),
        pytest.param(CONE, "7", id="CONE"),
        pytest.param(CPL, "0", id="CPL, CNM"),
    ],
)
def test_read(tmp_path, data, query):
    record = read_annotations(samples.write(tmp_path, "file", data))[0]
    assert (record.query_id, record.video_id, record.sentence) == (query, "c1", "A man runs.")
    assert record.moments == ((4.0, 9.0),) and record.duration == 60.0


DIDEMO = [{"annotation_id": 1, "description": "a dog", "num_segments": 6, "times": [[0, 0], [0, 1]], "video": "a.mpg"}]
EGO4D = {"videos": [{"clips": [{"annotations": [{"language_queries": [{"query": "where?"}]}]}]}]}
UMT = {"a": {"domain": "dog", "match": [1, -1], "clip": [[0, 50], [50, 100]], "frames": 100, "fps": 25}}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (DIDEMO, "DiDeMo"),
        (EGO4D, "prepare_ego4d_dataset"),
        (UMT, "YouTube Highlights"),
        ({"database": {"a": {"annotations": [], "duration": 3.0}}}, "ActivityNet's and HACS'"),
        ([{"video": "a.mp4", "conversations": [{"from": "human", "value": "when?"}]}], "video language model"),
        ([{"qid": 1, "query": "a dog", "vid": "a", "pred_relevant_windows": [[0, 2, 1.0]]}], "eval --submission"),
        ({"a": {"location": {}, "fps": 30}}, "the first has location, fps"),
        ([{"video": "a", "caption": "a dog", "timestamp": [0, 2]}], "it has video, caption, timestamp"),
        ("video,start,end,sentence\na,1,2,a dog\n", "JSON lines: qid, query, duration, vid"),
    ],
)
def test_refused_by_name(tmp_path, data, what):
    with pytest.raises(DataError, match=what) as error:
        read_annotations(samples.write(tmp_path, "file", data), on_broken="drop")
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_is_not_loaded(tmp_path, protocol):
    (tmp_path / "file").write_bytes(pickle.dumps([{"vid": "a"}], protocol))
    with pytest.raises(DataError, match="a pickle or another binary file, which is never loaded"):
        read_annotations(tmp_path / "file")
