"""Feature stores: every layout, every kind of damage."""

from __future__ import annotations

import gc
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin.integrations.data import cli as data_cli
from hero_plugin.integrations.data.features import FeatureStore, MemoryFeatures, open_features, sample_clips
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.support.errors import DataError

ARRAYS = {name: np.random.default_rng(i).normal(size=(3 + 2 * i, 4)) for i, name in enumerate(("a", "b.c", "d"))}


def folder(tmp_path, suffix=".npy", arrays=ARRAYS, name="features"):
    path = tmp_path / name
    path.mkdir()
    for video, array in arrays.items():
        if suffix == ".npy":
            np.save(path / f"{video}.npy", array)
        else:
            np.savez(path / f"{video}.npz", features=array)
    return path


def hdf5(tmp_path, layout):
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        for video, array in ARRAYS.items():
            file[layout.format(video=video)] = array
    return path


@pytest.mark.parametrize(
    "layout", [".npy", ".npz", "{video}", "features/{video}", "{video}/features", "{video}/c3d_features"]
)
def test_layouts(tmp_path, layout):
    path = folder(tmp_path, layout) if layout.startswith(".") else hdf5(tmp_path, layout)
    store = open_features(path)
    assert isinstance(store, FeatureStore)
    assert store.dim == 4 and store.keys() == ["a", "b.c", "d"]
    assert "a" in store and "z" not in store
    for video, array in ARRAYS.items():
        assert store[video].dtype == np.float32
        np.testing.assert_array_equal(store[video], array.astype(np.float32))
    with pytest.raises(DataError, match=r"no features of video 'bc' among 3 videos; the nearest names are b\.c"):
        store["bc"]


def test_other_files_in_a_folder_do_not_matter(tmp_path):
    path = folder(tmp_path)
    (path / "manifest.json").write_text("{}")
    (path / ".a.npy.writing-12345678").write_bytes(b"")
    assert open_features(path).keys() == ["a", "b.c", "d"]


def test_a_name_with_avi_finds_features_without_it(tmp_path):
    for name, value in {"s1-d1": 1.0, "s2-d2.avi": 2.0, "s2-d2": 3.0}.items():
        np.save(tmp_path / f"{name}.npy", np.full((4, 3), value, np.float32))
    store = open_features(tmp_path)
    assert "s1-d1.avi" in store and store["s1-d1.avi"][0, 0] == 1.0
    assert store["s2-d2.avi"][0, 0] == 2.0  # the name itself goes first
    assert not store.lacking("s1-d1.avi") and "s3-d3.avi" not in store and "s1-d1.mp4" not in store
    with pytest.raises(DataError, match=r"no features of video 's3-d3.avi'"):
        store["s3-d3.avi"]


def test_several_side_by_side(tmp_path):
    wider = {name: np.ones((len(array) + 1, 2)) for name, array in ARRAYS.items() if name != "d"}
    store = open_features([folder(tmp_path), folder(tmp_path, ".npz", wider, "other")])
    assert store.dim == 6 and store.keys() == ["a", "b.c"] and "d" not in store
    assert store["a"].shape == (3, 6)
    np.testing.assert_array_equal(store["a"][:, 4:], 1)
    with pytest.raises(DataError, match="video 'd'"):
        store["d"]
    far = {"a": np.ones((50, 2))}
    with pytest.raises(DataError, match=r"disagree about the number of clips: \[3, 50\]"):
        open_features([tmp_path / "features", folder(tmp_path, ".npy", far, "far")])["a"]


def test_max_clips(tmp_path):
    path = folder(tmp_path)
    assert open_features(path, max_clips=2)["d"].shape == (2, 4)
    np.testing.assert_array_equal(open_features(path, max_clips=3)["a"], open_features(path)["a"])


def literal_mean(features, max_clips):
    """EMB's and VSLNet's visual_feature_sampling, in words of one loop."""
    clips = len(features)
    if clips <= max_clips:
        return features
    edges = [min(int(np.round(i / max_clips * clips)), clips - 1) for i in range(max_clips + 1)]
    return np.stack([features[s:e].mean(axis=0) if s < e else features[s] for s, e in pairwise(edges)])


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 130))
def test_mean_pooling_is_the_literal_loop(clips, max_clips):
    features = np.random.default_rng(clips).normal(size=(clips, 3)).astype(np.float32)
    pooled = sample_clips(features, max_clips)
    np.testing.assert_allclose(pooled, literal_mean(features, max_clips), atol=1e-6)
    assert pooled.dtype == np.float32


@pytest.mark.upstream
def test_mean_pooling_is_upstreams(emb_data_util):
    for clips in (5, 127, 128, 129, 200, 256, 1000):
        features = np.random.default_rng(clips).normal(size=(clips, 3)).astype(np.float32)
        theirs = emb_data_util.visual_feature_sampling(features, 128)
        np.testing.assert_allclose(sample_clips(features, 128), theirs, atol=1e-6)


@given(st.integers(1, 300), st.integers(1, 130))
def test_subsampling_takes_clips_in_order(clips, max_clips):
    kept = sample_clips(np.arange(clips)[:, None], max_clips, "subsample")[:, 0]
    assert len(kept) == min(clips, max_clips)
    assert (np.diff(kept) > 0).all()


DAMAGE = {
    "nan": (np.array([[1.0, np.nan, 0, 0]]), "NaN in 1 of 1 clips, the first is clip 0"),
    "infinite": (np.array([[0.0] * 4, [np.inf, 0, 0, 0]]), "infinity in 1 of 2 clips, the first is clip 1"),
    "narrow": (np.zeros((2, 3)), "3 wide, expected 4 as in a"),
    "empty": (np.zeros((0, 4)), "no clips"),
    "flat": (np.zeros(4), r"expected features \(clips, dim\), got shape \(4,\)"),
    "deep": (np.zeros((2, 2, 4)), "expected features"),
    "text": (np.array([["a", "b", "c", "d"]]), "expected an array of numbers"),
    "huge": (np.full((1, 4), 1e300), "infinity"),
}


@pytest.mark.parametrize("kind", ["folder", "hdf5"])
def test_every_damaged_video_is_reported_at_once(tmp_path, kind):
    arrays = {"a": np.zeros((2, 4)), **{name: array for name, (array, _) in DAMAGE.items()}}
    if kind == "folder":
        path = folder(tmp_path, ".npy", arrays)
    else:
        arrays["text"] = arrays["text"].astype("S1")
        path = tmp_path / "features.h5"
        with h5py.File(path, "w") as file:
            for video, array in arrays.items():
                file[video] = array
    store = open_features(path)
    records = [Record(str(i), video, "x", ((0.0, 1.0),), 2.0) for i, video in enumerate([*arrays, "unknown", "a"])]
    assert len(data_cli._check_features([path], records, None)) == len(DAMAGE) + 1
    for video, (_, message) in DAMAGE.items():
        with pytest.raises(DataError, match=message) as one:
            store[video]
        assert video in one.value.problems[0].where and one.value.problems[0].fix


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_files(tmp_path, suffix, keep):
    path = folder(tmp_path, suffix, {"a": np.zeros((20, 4)), "b": np.random.default_rng(0).normal(size=(20, 4))})
    file = path / f"b{suffix}"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match="cannot be read") as caught:
        open_features(path)["b"]
    assert "b" + suffix in caught.value.problems[0].where and "again" in caught.value.problems[0].fix


def test_corrupt_bytes_inside_an_npz(tmp_path):
    path = folder(tmp_path, ".npz", {"a": np.zeros((2, 4))})
    np.savez_compressed(path / "b.npz", features=np.random.default_rng(0).normal(size=(50, 4)))
    data = bytearray((path / "b.npz").read_bytes())
    data[200:260] = b"x" * 60
    (path / "b.npz").write_bytes(bytes(data))
    np.savez(path / "c.npz", other=np.zeros((2, 4)), more=np.zeros(2))
    store = open_features(path)
    with pytest.raises(DataError, match="cannot be read"):
        store["b"]
    with pytest.raises(DataError, match=r"no array `features`, it has \['other', 'more'\]"):
        store["c"]


def test_pickled_arrays_are_never_loaded(tmp_path):
    path = folder(tmp_path, ".npy", {"a": np.zeros((2, 4))})
    np.save(path / "b.npy", np.array([{"harm": 1}], dtype=object), allow_pickle=True)
    np.savez(path / "c.npz", features=np.array([{"harm": 1}], dtype=object))
    (path / "d.npy").write_bytes(pickle.dumps({"features": [1.0]}))
    for video in ("b", "c", "d"):
        with pytest.raises(DataError, match=r"holds pickled Python objects.*not an array of numbers.*np\.save\(file, "):
            open_features(path)[video]


def test_a_group_per_video_holds_one_array_or_says_which(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a/c3d"], file["a/flow"], file["a/fps"] = np.ones((3, 4)), np.zeros((3, 2)), 25.0
    with pytest.raises(DataError, match=r"group a holds c3d, flow, fps, of which 2 are \(rows, dim\).*array=NAME"):
        open_features(tmp_path / "two.h5")
    assert open_features(tmp_path / "two.h5", array="flow")["a"].shape == (3, 2)


@pytest.mark.parametrize("layout", [".npy", ".npz", "{video}"])
def test_a_leading_axis_of_one_is_dropped(tmp_path, layout):
    arrays = {"a": np.ones((1, 3, 4)), "b": np.ones((5, 4)), "c": np.ones((1, 1, 4))}
    if layout.startswith("."):
        path = folder(tmp_path, layout, arrays)
    else:
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            file.update(arrays)
    store = open_features(path)
    assert store.dim == 4 and [len(store[video]) for video in "abc"] == [3, 5, 1]


def test_words_are_called_words(tmp_path):
    path = folder(tmp_path, ".npy", {"q1": np.ones((2, 4)), "q2": np.ones(4), "q3": np.full((2, 4), np.nan)})
    store = open_features(path, rows="words")
    with pytest.raises(DataError, match=r"expected features \(words, dim\), got shape \(4,\).*this query's"):
        store["q2"]
    with pytest.raises(DataError, match="in 2 of 2 words, the first is word 0"):
        store["q3"]
    with pytest.raises(DataError, match="no features of query 'q9' among 3 queries"):
        store["q9"]


def test_who_lacks_a_video_is_named(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for place, videos in ((one, "ab"), (two, "a")):
        place.mkdir()
        for video in videos:
            np.save(place / f"{video}.npy", np.ones((2, 3)))
    store = open_features([one, two], max_clips=1, normalize=True)
    assert store.lacking("b") == [str(two)] and store.lacking("c") == [str(one), str(two)] and not store.lacking("a")


def test_places_without_features(tmp_path):
    with pytest.raises(FileNotFoundError, match="no features at"):
        open_features(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no \.npy, \.npz, \.pt files"):
        open_features(tmp_path)
    (tmp_path / "a.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a file of the kind \.pkl"):
        open_features(tmp_path / "a.pkl")
    (tmp_path / "a.h5").write_bytes(b"not hdf5")
    with pytest.raises(DataError, match="cannot be opened"):
        open_features(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_group("nothing")
    with pytest.raises(DataError, match="no datasets of videos"):
        open_features(tmp_path / "b.h5")
    both = folder(tmp_path, ".npy", {"a": np.zeros((2, 4))})
    np.savez(both / "a.npz", features=np.zeros((2, 4)))
    with pytest.raises(DataError, match=r"both a\.npy and a\.npz"):
        open_features(both)
    for arguments in ({"max_clips": 0}, {"pooling": "max"}):
        with pytest.raises(ValueError):
            open_features(both, **arguments)
    with pytest.raises(ValueError, match="at least one path"):
        open_features([])


def test_threads_read_at_once(tmp_path):
    """CPython's parser, which reads .npy headers, has had a race (gh-106905): made frequent here, where it is."""
    np.save(tmp_path / "v.npy", np.ones((3, 2), np.float32))
    store, threshold, interval = open_features(tmp_path), gc.get_threshold(), sys.getswitchinterval()

    def collected(phase, info):
        """Python code in the midst of the parser's: where a thread gives way to another."""

    try:
        gc.callbacks.append(collected)
        gc.set_threshold(5)
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as pool:
            assert all(array.shape == (3, 2) for array in pool.map(store.__getitem__, ["v"] * 1000))
    finally:
        gc.callbacks.remove(collected)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)


def test_a_system_error_that_stays_is_not_hidden(tmp_path, monkeypatch):
    np.save(tmp_path / "v.npy", np.ones((3, 2), np.float32))
    store = open_features(tmp_path)

    def broken(*args, **how):
        raise SystemError("odd")

    monkeypatch.setattr(np, "load", broken)
    with pytest.raises(SystemError, match="odd"):
        store["v"]


def test_features_in_memory():
    store = MemoryFeatures(ARRAYS)
    assert store.dim == 4 and store.keys() == ["a", "b.c", "d"] and "a" in store
    np.testing.assert_array_equal(store["a"], ARRAYS["a"].astype(np.float32))
    with pytest.raises(DataError, match="no features of video"):
        store["z"]
    with pytest.raises(DataError, match="no videos"):
        MemoryFeatures({})
