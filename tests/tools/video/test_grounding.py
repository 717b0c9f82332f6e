"""Answers about video files are those about their features; windows, cache, clips, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("av")
pytest.importorskip("transformers")

from hero_plugin.integrations.cli import main as command
from hero_plugin.integrations.data.features import sample_clips
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.predict.model import PredictConfig
from hero_plugin.integrations.tools.predict.predict import main as predict
from hero_plugin.integrations.tools.video.decode import Video, upright
from hero_plugin.integrations.tools.video.encoders import TextEncoder, TransformersEncoder
from hero_plugin.integrations.tools.video.extract import Extractor
from hero_plugin.integrations.tools.video.ground import cut
from hero_plugin.integrations.tools.video.grounder import Moment, VideoGrounder, merged, windows_of
from tests.screen import QUIET
from tests.tools.video.movies import records_of, save_clip
from tests.tools.video.whole import main as whole

BASES = ["emb", "moment_detr", "qd_detr"]  # the last reads layers of its text encoder


@pytest.mark.parametrize("base", BASES)
def test_answers_are_those_about_extracted_features(asked, base, tmp_path):
    predict(
        PredictConfig(run=asked.runs[base], queries=asked.files["test"], output=tmp_path / "out", device="cpu"), QUIET
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    records = [record for record in records_of(asked.files["test"]) if record.video_id == "test000"]
    grounder = VideoGrounder.from_run(asked.runs[base], device="cpu", cache=tmp_path / "cache")
    grounder.add(asked.video)
    answers = grounder.ask_all([record.sentence for record in records])
    known = {line["qid"]: line for line in lines}
    for record, (moments, relevance) in zip(records, answers, strict=True):
        theirs = np.array(known[record.query_id]["pred_relevant_windows"])
        np.testing.assert_allclose(np.array(moments)[:, :2], theirs[:, :2], atol=0.02)
        np.testing.assert_allclose(np.array(moments)[:, 2], theirs[:, 2], atol=1e-3)
        assert len(relevance) == round(record.duration / 2) and 0 <= relevance.min() <= relevance.max() <= 1
    one = grounder.ask(records[0].sentence)
    np.testing.assert_allclose(one.moments, answers[0].moments, atol=1e-4)


def test_words_that_the_table_lacks_are_encoded(asked, tmp_path):
    grounder = VideoGrounder.from_run(asked.runs["emb"], device="cpu", cache=None)
    grounder.add(asked.video)
    new, other = grounder.ask("the crimson box emerges"), grounder.ask("the azure ball emerges")
    assert grounder.unseen("the crimson box emerges") == ["crimson", "box", "emerges"]
    assert not np.allclose(new.relevance, other.relevance, atol=1e-6)


def test_words_that_cannot_be_encoded_are_refused_each_time(asked, monkeypatch):
    grounder = VideoGrounder.from_run(asked.runs["emb"], device="cpu", cache=None)
    grounder.add(asked.video)
    grounder.ask("a red square")

    def fail(self, words):
        raise UserError("no encoder")

    monkeypatch.setattr(TextEncoder, "encode_words", fail)
    for _ in range(2):  # the model of the question before does not know them
        with pytest.raises(UserError, match="no encoder"):
            grounder.ask("the crimson box emerges")


def test_a_video_is_encoded_once(asked, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = VideoGrounder.from_run(asked.runs["emb"], device="cpu", cache=cache).add(asked.video)
    monkeypatch.setattr(Extractor, "extract_one", lambda self, path: pytest.fail("encoded again"))
    again = VideoGrounder.from_run(asked.runs["moment_detr"], device="cpu", cache=cache)
    assert len(again.add(asked.video).features) == len(first.features)
    [file] = cache.iterdir()
    for damaged in (b"damaged", file.read_bytes()[:100], b""):
        file.write_bytes(damaged)
        with pytest.raises(pytest.fail.Exception):
            again.add(asked.video)


def test_no_more_frames_are_encoded_at_once_than_in_extraction(asked, monkeypatch):
    grounder = VideoGrounder.from_run(asked.runs["emb"], device="cpu", cache=None)
    [manifest], frames = grounder.origins["features"], []
    fast = {**manifest, "encoders": [{**each, "frames_per_second": 8.0} for each in manifest["encoders"]]}
    monkeypatch.setitem(vars(grounder), "origins", {**grounder.origins, "features": [fast]})
    usual = TransformersEncoder.encode
    monkeypatch.setattr(
        TransformersEncoder, "encode", lambda self, clips: frames.append(clips.shape[:2]) or usual(self, clips)
    )
    grounder.add(asked.video)
    assert max(clips * each for clips, each in frames) == 64 and {each for _, each in frames} == {16}


def test_two_videos_of_one_name_are_told_apart(asked, movie, tmp_path):
    other = tmp_path / asked.video.name
    shutil.copy(movie, other)
    grounder = VideoGrounder.from_run(asked.runs["emb"], device="cpu", cache=None)
    first = grounder.add(asked.video)
    with pytest.raises(UserError, match=r"is called 'test000' like .*give it another name"):
        grounder.add(other)
    assert grounder.videos == {"test000": first}
    second = grounder.add(other, "other")
    assert len(grounder.ask("a red square").relevance) == len(second.features) != len(first.features)
    assert len(grounder.ask("a red square", "test000").relevance) == len(first.features)
    assert len(grounder.add(asked.video).features) == len(first.features) and list(grounder.videos)[-1] == "test000"


@pytest.mark.parametrize("base", BASES)
def test_a_long_video_is_asked_window_by_window(asked, base, monkeypatch):
    grounder = VideoGrounder.from_run(asked.runs[base], device="cpu", cache=None)
    video = grounder.add(asked.video)
    whole = grounder.ask("a red square")
    monkeypatch.setitem(vars(grounder), "origins", {**grounder.origins, "longest_clips": 6, "longest_seconds": 12.0})
    moments, relevance = grounder.ask("a red square")
    assert len(relevance) == len(whole.relevance) == len(video.features)
    assert all(0 <= each.start < each.end <= video.duration + 1e-3 for each in moments)
    assert [each.score for each in moments] == sorted((each.score for each in moments), reverse=True)
    # Its first window alone is a video of six clips.
    alone = grounder.videos["test000"]
    grounder.videos["test000"] = type(alone)(alone.path, alone.features[:6], 12.0, 2.0)
    first = grounder.ask("a red square")
    assert max(first.moments, key=lambda each: each.score).score <= moments[0].score + 1e-6
    np.testing.assert_allclose(first.relevance[:3], relevance[:3], atol=1e-5)


def test_a_video_no_longer_than_trainings_is_shortened_as_training_shortened(asked, monkeypatch):
    """Not asked window by window, at a rate of clips that the model never saw."""
    plain = VideoGrounder.from_run(asked.runs["emb"], device="cpu", cache=None)
    features = plain.add(asked.video).features
    plain.videos["test000"] = replace(plain.videos["test000"], features=sample_clips(features, 4))
    expected = plain.ask("a red square")
    for origins in ({"longest_clips": 4, "longest_seconds": 40.0}, {"longest_clips": 4}):  # the latter: an older run
        grounder = VideoGrounder.from_run(asked.runs["emb"], device="cpu", cache=None)
        known = {name: value for name, value in grounder.origins.items() if name != "longest_seconds"}
        monkeypatch.setitem(vars(grounder), "origins", {**known, **origins})
        monkeypatch.setattr(grounder, "settings", replace(grounder.settings, max_clips=4))
        grounder.add(asked.video)
        found = grounder.ask("a red square")
        np.testing.assert_allclose(found.moments[0], expected.moments[0], atol=1e-4)
        assert len(found.relevance) == len(features)
        places = np.arange(len(features)) * 4 // len(features)
        np.testing.assert_allclose(found.relevance, expected.relevance[places], atol=1e-5)


@settings(deadline=None)
@given(clips=st.integers(1, 300), longest=st.integers(1, 80))
def test_windows_cover_a_video_and_overlap_by_half(clips, longest):
    windows = windows_of(clips, longest)
    assert {clip for window in windows for clip in window} == set(range(clips))
    assert all(len(window) <= longest for window in windows)
    assert all(later.start <= earlier.start + max(1, longest // 2) for earlier, later in pairwise(windows))
    if clips <= longest:
        assert len(windows) == 1


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 50), st.floats(0, 1)), max_size=12))
def test_merged_moments_are_the_best_and_apart(drawn):
    moments = [Moment(start, start + length, score) for start, length, score in drawn]
    kept = merged(moments)
    assert kept[:1] == sorted(moments, key=lambda each: -each.score)[:1]
    assert set(kept) <= set(moments)
    for place, one in enumerate(kept):
        for other in kept[:place]:
            both = max(0.0, min(one.end, other.end) - max(one.start, other.start))
            assert both <= 0.5 * (one.end - one.start + other.end - other.start - both) + 1e-6


def test_the_command_shows_writes_and_cuts(asked, tmp_path, capsys):
    words = ["ground", str(asked.video), "a red square", "the crimson disc", "--run", str(asked.runs["emb"])]
    words += ["--json", str(tmp_path / "a.json"), "--cut", str(tmp_path / "cut"), "--cache", str(tmp_path / "cache")]
    assert command(words) == 0
    said = capsys.readouterr().out
    assert "a red square" in said and "untrained: crimson" in said and "bridge" not in said
    found = json.loads((tmp_path / "a.json").read_text())
    assert [each["query"] for each in found["answers"]] == ["a red square", "the crimson disc"]
    start, end, _ = found["answers"][0]["moments"][0]
    piece = Video(tmp_path / "cut" / "test000-1-1.mp4")
    frames = list(piece.frames())
    assert piece.duration == pytest.approx(end - start, abs=0.3) and len(frames) > 1
    for changes, name in (([], "a.json"), (["--json", str(tmp_path / "b.json")], "test000-1-1.mp4")):
        assert command([*words, *changes]) == 2  # what is there stays
        assert f"{name} exists already: add --overwrite" in " ".join(capsys.readouterr().err.split())
    assert command([*words, "--overwrite"]) == 0
    shutil.copy(asked.video, tmp_path / "mine.mp4")
    words = ["ground", str(tmp_path / "mine.mp4"), "a red square", "--run", str(asked.runs["emb"]), "--overwrite"]
    assert command([*words, "--json", str(tmp_path / "mine.mp4"), "--cache", str(tmp_path / "cache")]) == 2
    assert (tmp_path / "mine.mp4").read_bytes() == asked.video.read_bytes()


def test_the_beginning_of_a_transport_stream_is_cut_whole(movie, tmp_path, ffmpeg):
    """A seek lands between its pictures, and nothing is decoded until the next whole one."""
    ffmpeg("-i", movie, "-c:v", "libx264", "-g", "1000", tmp_path / "one.ts")
    cut(tmp_path / "one.ts", 3.0, 6.0, tmp_path / "piece.mp4")
    assert Video(tmp_path / "piece.mp4").duration == pytest.approx(3.0, abs=0.05)
    assert sum(1 for _ in Video(tmp_path / "piece.mp4").frames()) == 24


def test_the_bridge_says_how_it_reads_a_query(asked, tmp_path, capsys):
    words = ["ground", str(asked.video), "a red square", "the crimson disc", "--run", str(asked.runs["emb"])]
    assert command([*words, "--bridge", "--cache", str(tmp_path)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("bridge: "))
    assert line.startswith("bridge: the crimson disc: crimson -> ")


def test_a_clip_is_cut_to_the_frame_with_its_sound(movie, tmp_path, ffmpeg):
    import av

    loud = tmp_path / "loud.mp4"
    ffmpeg("-i", movie, "-f", "lavfi", "-i", "sine=duration=15", "-c:v", "copy", "-c:a", "aac", loud)
    cut(loud, 4.0, 6.5, tmp_path / "piece.mp4")
    piece = Video(tmp_path / "piece.mp4")
    ours = [upright(frame, 0, "crop").astype(int) for _, frame in piece.frames()]
    theirs = [upright(frame, 0, "crop").astype(int) for time, frame in Video(loud).frames() if 4.0 <= time < 6.5]
    assert len(ours) == len(theirs) == 20
    assert max(np.abs(a - b).mean() for a, b in zip(ours, theirs, strict=True)) < 12
    with av.open(str(tmp_path / "piece.mp4")) as container:
        assert float(container.streams.audio[0].duration * container.streams.audio[0].time_base) > 2
    cut(loud, 0.0, 1.0, tmp_path / "first.mp4")  # where sound is decoded before the first picture
    assert len(list(Video(tmp_path / "first.mp4").frames())) == 8
    with pytest.raises(Exception, match="no picture from"):
        cut(movie, 100.0, 101.0, tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()


def test_a_clip_begins_with_the_picture_on_screen(tmp_path, ffmpeg):
    """Of slides, a moment may hold no picture's beginning; what the encoder saw of it is on screen all the same."""
    slides = tmp_path / "slides.mp4"
    grey = "geq=lum='40+80*floor(T/5)':cb=128:cr=128,fps=8,select='not(mod(n,40))'"
    ffmpeg("-f", "lavfi", "-i", "color=size=64x48:rate=8:duration=15", "-vf", grey, "-fps_mode", "vfr", slides)
    known = [(time, upright(frame, 0, "crop").astype(int)) for time, frame in Video(slides).frames()]
    assert [time for time, _ in known] == [0.0, 5.0, 10.0]

    def pictures(start, end):
        cut(slides, start, end, tmp_path / "piece.mp4")
        frames = Video(tmp_path / "piece.mp4").frames()
        piece = [(time, upright(frame, 0, "crop").astype(int)) for time, frame in frames]
        nearest = [min(range(3), key=lambda place: np.abs(known[place][1] - found).mean()) for _, found in piece]
        return list(zip([round(time, 3) for time, _ in piece], nearest, strict=True))

    assert pictures(6.0, 9.0) == [(0.0, 1)]
    assert pictures(3.0, 11.0) == [(0.0, 0), (2.0, 1), (7.0, 2)]
    assert pictures(12.0, 14.0) == [(0.0, 2)]
    assert pictures(5.0, 7.5) == [(0.0, 1)]
    still = tmp_path / "still.mp4"  # nothing new is recorded from second 3 to 10
    select = "fps=8,select='lt(t,3)+gte(t,10)'"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=8:duration=11", "-vf", select, "-fps_mode", "vfr", still)
    cut(still, 4.0, 8.0, tmp_path / "piece.mp4")
    piece = Video(tmp_path / "piece.mp4")
    assert next(time for time, _ in piece.frames()) == 0.0
    assert list(piece.frames()) and piece.duration == pytest.approx(4.0, abs=0.01)


def test_what_cannot_be_asked_is_refused(asked, tmp_path, capsys):
    run = str(asked.runs["emb"])
    assert command(["ground", str(asked.video), "?!", "--run", run]) == 2
    assert "no word in the query '?!'" in capsys.readouterr().err
    assert command(["ground", str(asked.video), "--run", run]) == 2
    assert "no query" in capsys.readouterr().err
    assert command(["ground", str(tmp_path / "no.mp4"), "a disc", "--run", run, "--cache", str(tmp_path)]) == 2
    assert "no video at" in capsys.readouterr().err
    grounder = VideoGrounder.from_run(run, device="cpu")
    with pytest.raises(UserError, match="no video"):
        grounder.ask("a disc")


def test_a_run_whose_features_no_encoder_can_make_is_refused(asked, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(asked.runs["emb"], run)
    (run / "features.json").unlink()
    with pytest.raises(UserError, match=r"no encoder is known to make.*data extract"):
        VideoGrounder.from_run(run)


def test_a_run_without_its_checkpoint_is_refused_at_once(asked, tmp_path):
    shutil.copytree(asked.runs["emb"], tmp_path / "run")
    (tmp_path / "run" / "best.pt").unlink()
    with pytest.raises(UserError, match=r"best\.pt: no such checkpoint"):
        VideoGrounder.from_run(tmp_path / "run")


def test_an_encoder_may_move_but_not_change(asked, clip, tmp_path):
    moved, other = tmp_path / "moved", save_clip(tmp_path / "other", seed=3)
    shutil.copytree(clip, moved)
    found = VideoGrounder.from_run(asked.runs["emb"], cache=None, encoders=[str(moved)], device="cpu").add(asked.video)
    assert len(found.features)
    with pytest.raises(UserError, match=r"has weights .*expected .*\n.*was trained on"):
        VideoGrounder.from_run(asked.runs["emb"], cache=None, encoders=[str(other)], device="cpu").add(asked.video)


@pytest.mark.slow
def test_from_mp4_to_moment(tmp_path):
    scores = whole(tmp_path / "whole", train_videos=60, test_videos=20)
    for model in scores.values():
        assert model["test"] > 2 * model["test, chance"]
