"""Layouts that people's files have beside the four that are written: read rightly, or refused by name."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest
import torch

from hero_plugin.integrations.data import load_word_vectors, open_features, read_annotations
from hero_plugin.integrations.data.features import missing_features
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


def test_snags_segments_are_seconds_where_it_counts_frames_in_place_of_a_duration(tmp_path):
    entry = {**SNAG["c1"], "num_frames": 1800}
    del entry["duration"]
    (record,) = read_annotations(samples.write(tmp_path, "file", {"c1": entry}))
    assert record.moments == ((4.0, 9.0),) and record.duration == 60.0


def test_subsets_of_one_file_are_not_read_together(tmp_path):
    entries = {f"c{place}": {**SNAG["c1"], "subset": subset} for place, subset in enumerate(("train", "test"))}
    with pytest.raises(DataError, match="several subsets: test, train"):
        read_annotations(samples.write(tmp_path, "file", {"database": entries}))


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


CLIPS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.pt", lambda path: torch.save(torch.from_numpy(CLIPS), path)),
        ("a.pt", lambda path: torch.save({"features": torch.from_numpy(CLIPS).half(), "fps": 2}, path)),
        ("a.npz", lambda path: np.savez(path, CLIPS)),  # as arr_0
        ("a.npz", lambda path: np.savez(path, features=CLIPS, other=CLIPS + 1)),
    ],
)
def test_features_read(tmp_path, name, save):
    save(tmp_path / name)
    np.testing.assert_array_equal(open_features(tmp_path)["a"], CLIPS)


class Harm:
    """What must not be made while a file is read."""


def test_features_refused_by_what_they_are(tmp_path):
    with pytest.raises(DataError, match=r"no \.npy, \.npz, \.pt files in this folder; it has data\.mdb"):
        (tmp_path / "data.mdb").write_bytes(b"")
        open_features(tmp_path)
    torch.save({"rgb": torch.zeros(3, 4), "flow": torch.zeros(3, 4)}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"no array `features`, it has \['rgb', 'flow'\]"):
        open_features(tmp_path)
    torch.save(Harm(), tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds pickled Python objects, which are never loaded"):
        open_features(tmp_path)
    np.save(tmp_path / "b.npy", np.zeros((3, 8, 1, 1)))
    with pytest.raises(DataError, match=r"got shape \(3, 8, 1, 1\) -> average or drop its other axes"):
        (tmp_path / "a.pt").unlink()
        open_features(tmp_path)


def test_swapped_axes_are_hinted_at(tmp_path):
    for video, clips in (("a", 20), ("b", 30)):
        np.save(tmp_path / f"{video}.npy", np.zeros((8, clips)))
    with pytest.raises(DataError, match=r"\(8, 30\) are 30 wide.*with axes \(clips, dim\) and not \(dim, clips\)"):
        open_features(tmp_path)["b"]


def test_names_that_never_agree_are_one_problem(tmp_path):
    for video in ("a", "b"):
        np.save(tmp_path / f"{video}.mp4.npy", CLIPS)
    store = open_features(tmp_path)
    (problem,) = missing_features(store, {"a": 2, "b": 1}, "train.json")
    assert (
        "none of the 2 videos, 'a', 'b', ..., has features" in problem.what
        and "called 'a.mp4', 'b.mp4'" in problem.what
    )
    (problem,) = missing_features(store, {"a": 2, "b.mp4": 1}, "train.json")
    assert problem.where == "train.json: video a" and problem.what.startswith("2 queries, and no features in")


@pytest.mark.parametrize("layout", ["gz", "pickle", "binary", "torch", "keys"])
def test_word_tables_that_are_not_read_say_what_is(tmp_path, layout):
    path = tmp_path / "words"
    if layout == "gz":
        path.write_bytes(gzip.compress(b"door 1.0 2.0\n"))
    elif layout == "pickle":
        path.write_bytes(pickle.dumps({"door": [1.0, 2.0]}))
    elif layout == "binary":
        path.write_bytes(b"1 2\ndoor " + np.array([1.0, 2.0], np.float32).tobytes())
    elif layout == "torch":
        torch.save({"door": torch.ones(2)}, path)
    else:
        with open(path, "wb") as file:
            np.savez(file, vocab=np.array(["door"]), table=np.ones((1, 2)))
    with pytest.raises(DataError, match=r"expected GloVe text, unpacked, .*or \.npz with the arrays words and vectors"):
        load_word_vectors(path)
