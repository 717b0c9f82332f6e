"""The choices between data sets' conventions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.integrations.data.moments import Conversion, convert_records, snap_moment
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.support.errors import DataError

RECORD = Record("7", "v", "a person sits.", ((3.0, 9.1), (11.0, 12.0)), 15.0, extra={"qid": "7", "novels": [1]})


def only(**choices):
    (record,) = convert_records([RECORD], Conversion(**choices))
    return record


def test_the_defaults_change_nothing():
    assert only() == RECORD


def test_windows():
    assert only(windows="first").moments == ((3.0, 9.1),)
    assert only(windows="longest").moments == ((3.0, 9.1),)
    assert only(windows="hull").moments == ((3.0, 12.0),)
    split = convert_records([RECORD], Conversion(windows="split"))
    assert [(r.query_id, r.moments) for r in split] == [("7_0", ((3.0, 9.1),)), ("7_1", ((11.0, 12.0),))]
    labels = tuple((clip, (4.0,)) for clip in (1, 2, 3, 4, 5))
    for windows, found in {"first": [[1, 2, 3, 4]], "hull": [[1, 2, 3, 4, 5]], "split": [[1, 2, 3, 4], [5]]}.items():
        records = convert_records([RECORD.replace(saliency=labels)], Conversion(windows=windows))
        assert [[clip for clip, _ in record.saliency] for record in records] == found


def test_windows_that_rounding_makes_one_stand_once():
    (record,) = convert_records(
        [RECORD.replace(moments=((0.0, 1.1), (1.2, 1.9), (7.0, 8.0)))], Conversion(rounding="outward")
    )
    assert record.moments == ((0.0, 2.0), (6.0, 8.0))


def test_ids_of_split_windows_are_their_own():
    records = [RECORD, RECORD.replace(query_id="7_1", moments=((3.0, 4.0),))]
    with pytest.raises(DataError, match="query id '7_1': is that of two queries once windows are split"):
        convert_records(records, Conversion(windows="split"))
    numbered = convert_records(records, Conversion(windows="split", query_ids="number"))
    assert [record.query_id for record in numbered] == ["0", "1", "2"]


def test_query_ids():
    other = RECORD.replace(video_id="w")
    numbered = convert_records([RECORD, other, RECORD], Conversion(query_ids="number", first_query_id=100))
    assert [r.query_id for r in numbered] == ["100", "101", "102"]
    assert all("qid" not in r.extra for r in numbered)
    by_video = convert_records([RECORD, other, RECORD], Conversion(query_ids="video"))
    assert [r.query_id for r in by_video] == ["v_0", "w_0", "v_1"]


def test_periods():
    assert only(period="strip").sentence == "a person sits"
    assert only(period="add").sentence == "a person sits."
    (record,) = convert_records([RECORD.replace(sentence="who sits?")], Conversion(period="add"))
    assert record.sentence == "who sits?"


def test_rounding_moves_moments_to_clip_edges():
    assert only(rounding="nearest").moments == ((4.0, 10.0), (10.0, 12.0))  # the second: empty, so one clip
    assert only(rounding="outward", clip_length=1.0).moments == ((3.0, 10.0), (11.0, 12.0))
    assert only(rounding="floor", clip_length=4.0).moments == ((0.0, 8.0), (8.0, 12.0))
    assert snap_moment((14.5, 15.0), 15.0, 2.0, "best_iou") == (14.0, 15.0)  # the last clip ends with its video


def test_frame_numbers_of_a_moved_moment_are_not_kept():
    record = RECORD.replace(moments=((3.0, 9.1),), extra={"framestamps": [50, 150]})
    (kept,) = convert_records([record], Conversion())
    (moved,) = convert_records([record], Conversion(rounding="nearest"))
    assert kept.extra == {"framestamps": [50, 150]} and moved.extra == {}


def test_saliency():
    assert only(saliency="none").saliency == ()
    labels = only(windows="first", saliency="inside", clip_length=1.0, saliency_score=3.0, annotators=2).saliency
    assert labels == tuple((clip, (3.0, 3.0)) for clip in range(3, 9))
    assert [clip for clip, _ in only(saliency="lighthouse", clip_length=1.0).saliency] == [3, 4, 5, 6, 7, 8]


def test_extras_can_stay_behind():
    (record,) = convert_records([RECORD], Conversion(), keep_extra=False)
    assert record.extra == {}


@pytest.mark.parametrize("choice", ["windows", "query_ids", "period", "saliency", "rounding"])
def test_unknown_choices(choice):
    with pytest.raises(ValueError, match=f"{choice} must be one of"):
        only(**{choice: "nonsense"})
    with pytest.raises(ValueError, match="clip_length"):
        only(clip_length=0.0)


@given(
    st.floats(1, 300),
    st.floats(0, 1),
    st.floats(0.01, 1),
    st.sampled_from([0.5, 1.0, 2.0, 2.13]),
    st.sampled_from(["best_iou", "floor", "nearest", "outward"]),
)
def test_snapped_moments_stay_inside_and_stay_put(duration, left, width, clip_length, rounding):
    start = left * duration * 0.99
    end = min(duration, start + width * duration)
    once = snap_moment((start, end), duration, clip_length, rounding)
    assert 0 <= once[0] < once[1] <= duration
    if duration % clip_length > clip_length / 2 or once[1] < duration:  # a short last clip may not win again
        assert snap_moment(once, duration, clip_length, rounding) == pytest.approx(once)
