"""Labels and clips against upstream's own data sets, line by line of QVHighlights, on made-up features."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.feature_bank import StoreBank
from hero_plugin.integrations.data.features import open_features
from hero_plugin.integrations.data.records import Change, Record, Rewording, reworded_record
from hero_plugin.integrations.support.errors import DataError
from hero_plugin.integrations.tools.bench.upstream import load_upstream_detr
from hero_plugin.integrations.training.detr import QDDETRTrainConfig
from hero_plugin.integrations.training.detr_batches import (
    DetrCollate,
    DetrExample,
    draw_moments,
    draw_pairs,
    endpoints,
    make_labels,
    seen_moments,
    span_labels,
)
from hero_plugin.integrations.training.queries import QueryFiles
from tests.resources import shared, upstream

CLIP_LENGTH = 2


@pytest.fixture(scope="module")
def val():
    path = shared("qvhighlights", "highlight_val_release.jsonl")
    return path, read_annotations(path, on_outside="keep")


def dataset_module(folder: str, package: str) -> ModuleType:
    """Upstream's; it wants a progress bar and tables at hand, and uses neither here."""
    with mock.patch.dict(sys.modules, {"tqdm": SimpleNamespace(tqdm=None), "pandas": ModuleType("pandas")}):
        return load_upstream_detr(upstream(folder), f"{package}.start_end_dataset")


def published(folder: str, package: str, path: Path, features: list[str] | None = None, words: str = "") -> Any:
    """Upstream's data set on the given lines, none of its features read yet."""
    options = {"ctx_mode": "video_tef", "max_q_l": 32, "max_v_l": 75, "clip_len": CLIP_LENGTH}
    return dataset_module(folder, package).StartEndDataset("hl", str(path), features or [], words, **options)


def clips_of(record: Record) -> int:
    return min(75, int(np.ceil(record.duration / CLIP_LENGTH)))


def test_deterministic_labels_are_upstreams_on_every_line(val):
    path, records = val
    theirs = published("QD-DETR", "qd_detr", path)
    assert len(records) == len(theirs.data) == 1550
    for record, meta in zip(records, theirs.data, strict=True):
        clips = clips_of(record)
        ours = make_labels(record, clips, CLIP_LENGTH)
        high, low, scores = theirs.get_saliency_labels_all(meta["relevant_clip_ids"], meta["saliency_scores"], clips)
        assert (ours.hard_positive, ours.hard_negative) == (high[0], low[0])
        np.testing.assert_array_equal(ours.scores, scores)
        np.testing.assert_array_equal(np.nonzero(ours.relevant)[0], meta["relevant_clip_ids"])
        assert ours.positives[high[1]] > 0
        assert ours.negatives[low[1]] > 0
        expected = theirs.get_span_labels([list(window) for window in meta["relevant_windows"]][:5], clips)
        np.testing.assert_array_equal(ours.spans[:5], expected.numpy())


def test_random_clips_come_from_upstreams_pools_as_often(val):
    path, records = val
    theirs = published("moment_detr", "moment_detr", path)
    row = min(range(len(records)), key=lambda row: abs(len(records[row].saliency) - 5))
    record, meta = records[row], theirs.data[row]
    ours = make_labels(record, 75, CLIP_LENGTH)
    random.seed(0)
    drawn = [theirs.get_saliency_labels(meta["relevant_clip_ids"], meta["saliency_scores"], 75) for _ in range(2000)]
    high, low = repeated(ours, 2000)
    for mine, other in ((high, [pair[0][1] for pair in drawn]), (low, [pair[1][1] for pair in drawn])):
        assert set(mine[:, 1].tolist()) == set(other)
    share = np.bincount(high[:, 1].numpy(), minlength=75) / 2000
    np.testing.assert_allclose(share, ours.positives / ours.positives.sum(), atol=0.05)


@pytest.mark.parametrize(
    ("window", "clips"),
    [
        ((26.0, 36.0), 75),
        ((0.0, 150.0), 75),
        ((10.5, 11.5), 75),
        ((4.0, 6.0), 5),
        ((0.0, 4.0), 4),
        ((149.0, 150.0), 75),
    ],
)
def test_labels_of_a_moment_are_those_of_a_subtitle_upstream(window, clips):
    path = shared("qvhighlights", "highlight_val_release.jsonl")
    theirs = published("QD-DETR", "qd_detr", path)
    ours = make_labels(Record("q", "v", "s", (window,), clips * 2.0), clips, CLIP_LENGTH)
    try:
        drawn = [theirs.get_saliency_labels_sub_as_query(window, clips) for _ in range(300)]
    except ValueError:  # too few clips outside: upstream stops, lighthouse takes the positive ones
        assert not ours.negatives.any()
        high, low = repeated(ours, 50)
        assert torch.equal(high, low)
        return
    np.testing.assert_array_equal(ours.positives, drawn[0][2])
    np.testing.assert_array_equal(ours.scores, drawn[0][2])
    high, low = repeated(ours, 300)
    assert {clip for pair in drawn for clip in pair[0]} <= set(np.nonzero(ours.positives)[0])
    assert set(high.flatten().tolist()) <= set(np.nonzero(ours.positives)[0])
    assert {clip for pair in drawn for clip in pair[1]} <= set(np.nonzero(ours.negatives)[0])
    assert set(low.flatten().tolist()) <= set(np.nonzero(ours.negatives)[0])
    lone = ours.positives.sum() == 1
    assert (high[:, 0] == high[:, 1]).all() if lone else (high[:, 0] != high[:, 1]).all()
    assert (low[:, 0] != low[:, 1]).all()


def repeated(labels, times):
    weights = (torch.from_numpy(each).expand(times, -1) for each in (labels.positives, labels.negatives))
    torch.manual_seed(0)
    return draw_pairs(*weights, torch.full((times,), labels.hard_positive), torch.full((times,), labels.hard_negative))


def test_without_a_free_clip_the_hard_pair_is_taken_twice():
    record = Record("q", "v", "s", ((0.0, 6.0),), 6.0, saliency=((0, (1, 1, 1)), (1, (4, 4, 4)), (2, (2, 2, 2))))
    high, low = repeated(make_labels(record, 3, 2.0), 4)
    assert high.tolist() == [[1, 1]] * 4
    assert low.tolist() == [[0, 0]] * 4


def test_scored_clips_beyond_the_features_count_as_the_last():
    record = Record("q", "v", "s", ((0.0, 8.0),), 8.0, saliency=((2, (1, 1, 1)), (3, (4, 4, 4))))
    labels = make_labels(record, 3, 2.0)
    assert (labels.hard_positive, labels.hard_negative) == (2, 2)
    assert labels.positives.tolist() == [0, 0, 2]
    assert labels.relevant.tolist() == [0, 0, 1]
    assert labels.scores.tolist() == [0, 0, 3]


def test_of_many_moments_five_are_drawn_and_few_stay_in_order():
    spans = torch.arange(32.0).view(2, 8, 2)
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        drawn, windows = draw_moments(spans, torch.tensor([8, 2]))
        assert windows.tolist() == [5, 2]
        assert torch.equal(drawn[1, :2], spans[1, :2])
        assert len(set(drawn[0, :, 0].tolist())) == 5
        seen.update(drawn[0, :, 0].tolist())
    assert seen == set(spans[0, :, 0].tolist())
    same, _ = draw_moments(spans[:, :5], torch.tensor([5, 2]))
    assert same.data_ptr() == spans.data_ptr()


def test_spans_are_shares_of_the_video():
    np.testing.assert_allclose(span_labels([(10.0, 20.0)], 40.0), [[0.375, 0.25]])
    assert span_labels([], 40.0).shape == (0, 2)


@pytest.fixture
def folders(tmp_path, val):
    """Made-up features of a few videos, two folders of different lengths, and of their queries."""
    numbers = np.random.default_rng(0)
    chosen = [record for record in val[1] if record.duration > 100][:6]
    for name, width, more in (("slowfast", 5, 2), ("clip", 3, 0)):
        (tmp_path / name).mkdir()
        for record in chosen:
            features = numbers.normal(size=(int(record.duration // 2) + more, width)).astype(np.float32)
            np.savez(tmp_path / name / f"{record.video_id}.npz", features=features)
    (tmp_path / "text").mkdir()
    for words, record in zip((4, 9, 40, 1, 32, 33), chosen, strict=True):
        hidden = numbers.normal(size=(words, 7)).astype(np.float16)
        np.savez(tmp_path / "text" / f"qid{record.query_id}.npz", last_hidden_state=hidden, pooler_output=hidden[0])
    lines = {record.query_id: index for index, record in enumerate(val[1])}
    return tmp_path, chosen, [lines[record.query_id] for record in chosen]


def test_a_batch_holds_what_upstream_feeds_its_models(val, folders):
    root, records, lines = folders
    folders = [str(root / "slowfast"), str(root / "clip")]
    theirs = published("TR-DETR", "tr_detr", val[0], folders, str(root / "text"))
    module = dataset_module("TR-DETR", "tr_detr")
    _, batched = module.start_end_collate([theirs[line] for line in lines])
    inputs, targets = module.prepare_batch_inputs(batched, torch.device("cpu"))

    store = open_features([root / "slowfast", root / "clip"], max_clips=75, pooling="cut", normalize=True)
    bank = StoreBank(store, [record.video_id for record in records])
    queries = QueryFiles(QDDETRTrainConfig(query_features=root / "text"), records)
    rows = [bank.rows[record.video_id] for record in records]
    labels = [make_labels(record, bank.clips(row), CLIP_LENGTH) for record, row in zip(records, rows, strict=True)]
    batch = DetrCollate(bank, queries)(list(map(DetrExample, records, rows, labels)))
    for name, expected in inputs.items():
        torch.testing.assert_close(batch[name], expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(batch["scores"], targets["saliency_all_labels"], rtol=0, atol=0)
    torch.testing.assert_close(batch["relevant"], targets["src_pos_mask"], rtol=0, atol=0)
    for spans, count, expected in zip(batch["spans"], batch["moment_counts"], targets["span_labels"], strict=True):
        assert torch.equal(spans[:count], expected["spans"])


def test_an_id_of_two_sentences_has_no_file_of_its_own(tmp_path):
    """Two sets that are numbered from 0 each would read one another's queries."""
    np.savez(tmp_path / "qid0.npz", last_hidden_state=np.ones((2, 4)))
    records = [Record("0", "v", sentence, ((0.0, 1.0),), 2.0) for sentence in ("a dog", "a dog", "a cat")]
    config = QDDETRTrainConfig(query_features=tmp_path)
    assert QueryFiles(config, records[:2]).dim == 4
    with pytest.raises(DataError, match="query 0: 'a dog' in one place, 'a cat' in another"):
        QueryFiles(config, records)


def test_two_ids_do_not_share_a_file(tmp_path):
    np.savez(tmp_path / "qid5.npz", last_hidden_state=np.ones((2, 4)))
    config = QDDETRTrainConfig(query_features=tmp_path)
    records = [Record(name, "v", sentence, (), 2.0) for name, sentence in (("5", "a dog"), ("qid5", "a cat"))]
    with pytest.raises(DataError, match=r"query qid5: 'a dog' in one place, 'a cat' in another: .*qid5"):
        QueryFiles(config, records)


def test_a_file_says_whose_vectors_it_holds(tmp_path):
    np.savez(tmp_path / "qidv_0.npz", last_hidden_state=np.ones((2, 4)), sentence=np.array(" a  dog"))
    config = QDDETRTrainConfig(query_features=tmp_path)
    assert QueryFiles(config, [Record("v_0", "v", "a dog", (), 2.0)]).dim == 4
    with pytest.raises(DataError, match=r"query v_0: .*qidv_0 holds the vectors of 'a dog', and the query is 'a cat'"):
        QueryFiles(config, [Record("v_0", "v", "a cat", (), 2.0)])


def test_a_rewording_that_was_counted_anew_never_reads_an_originals_vectors(tmp_path):
    wording = Rewording("hound runs", (Change("dog", "hound", "synonym"),), ("hound",))
    rewording = reworded_record(Record("v_1", "v", "dog runs", ((0.0, 1.0),), 10.0), wording, 1, "wordnet")
    write_annotations([rewording], tmp_path / "captions.json", format="captions")
    records = read_annotations(tmp_path / "captions.json")
    assert records[0].query_id == "v_0"
    folder = tmp_path / "text"
    folder.mkdir()
    np.savez(folder / "qidv_0.npz", last_hidden_state=np.full((2, 4), 1.0))
    config = QDDETRTrainConfig(query_features=folder, normalize_words=False)
    with pytest.raises(DataError, match=r"qidv_0 may be another query's: this is v_1~1, counted anew"):
        QueryFiles(config, records)
    np.savez(folder / "qidv_0.npz", last_hidden_state=np.full((2, 4), 2.0), sentence=np.array("hound runs"))
    assert QueryFiles(config, records).batch(records)[0][0, 0, 0] == 2
    np.savez(folder / "qidv_1~1.npz", last_hidden_state=np.full((2, 4), 3.0))
    assert QueryFiles(config, records).batch(records)[0][0, 0, 0] == 3


def test_a_clips_endpoints_are_shares_of_its_own_video():
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    ends = endpoints(mask.sum(1), mask)
    np.testing.assert_allclose(ends[0], [[0, 0.5], [0.5, 1], [0, 0], [0, 0]])
    np.testing.assert_allclose(ends[1, :, 0], [0, 0.25, 0.5, 0.75])


def cut(duration=300.0, moments=((100.0, 120.0),), saliency=()):
    return Record("q", "v", "a dog", moments, duration, saliency=saliency)


def test_a_video_that_was_cut_is_labelled_as_far_as_it_is_seen():
    whole = make_labels(cut(), 150, 2.0)
    seen = make_labels(cut(), 75, 2.0)  # 150 s of 300
    np.testing.assert_allclose(whole.spans, [[110 / 300, 20 / 300]], rtol=1e-6)
    np.testing.assert_allclose(seen.spans, [[110 / 150, 20 / 150]], rtol=1e-6)
    over = make_labels(cut(moments=((140.0, 160.0), (200.0, 210.0))), 75, 2.0)
    np.testing.assert_allclose(over.spans, [[145 / 150, 10 / 150]], rtol=1e-6)
    assert np.flatnonzero(over.relevant).tolist() == [70, 71, 72, 73, 74]


@pytest.mark.parametrize("duration", [150.0, 151.9, 149.0])
def test_a_video_that_ends_with_its_last_clip_is_not_cut(duration):
    moments = ((100.0, 149.0),)
    assert seen_moments(cut(duration, moments), 75, 2.0) == moments


@pytest.mark.parametrize(
    ("clips", "clip_length", "scored_length", "expected"),
    [
        (75, 2.0, 2.0, [50, 51, 52, 53, 54]),  # 100 to 110 s of 150
        (150, 1.0, 2.0, [*range(100, 110)]),
        (150, 1.0, 1.0, [50, 51, 52, 53, 54]),
        (32, 0.0, 2.0, [21, 22, 23]),  # clips of 4.6875 s: the middles of 98.4 to 112.5
        (75, 0.0, 2.0, [50, 51, 52, 53, 54]),
    ],
)
def test_scores_are_of_seconds_and_not_of_places(clips, clip_length, scored_length, expected):
    saliency = tuple((place, (2, 3, 4)) for place in range(50, 55))
    made = make_labels(cut(150.0, ((100.0, 110.0),), saliency), clips, clip_length, scored_length)
    assert np.flatnonzero(made.scores).tolist() == np.flatnonzero(made.relevant).tolist() == expected
    assert set(made.scores[expected]) == {9.0} and made.hard_positive in expected
