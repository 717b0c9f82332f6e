"""Frames, times and samples of awkward files are those of ffmpeg."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("av")

from hero_plugin.integrations.support import DataError, UserError
from hero_plugin.integrations.tools.video.decode import ClipSampler, Video, samples_per_clip, upright

RATES = [(2.0, 0.5), (1.0, 1.0), (0.5, 2.0), (3.0, 1.0)]


def awkward(kind, movie, folder, ffmpeg):
    path = folder / f"{kind}.{'mkv' if kind in ('vp9', 'variable') else 'avi' if kind == 'avi' else 'mp4'}"
    if kind == "b-frames":
        return movie
    if kind == "variable":  # every third frame of the second half is dropped, and the first half is slower
        pick = "select='lt(n,40)+gt(mod(n,3),0)',setpts='PTS+if(lt(N,40),N*0.011,0.44)/TB'"
        ffmpeg("-i", movie, "-vf", pick, "-vsync", "vfr", "-an", path)
    elif kind == "edit list":
        ffmpeg("-ss", "3.3", "-i", movie, "-c", "copy", path)
    elif kind == "late start":
        ffmpeg("-i", movie, "-vf", "setpts=PTS+1.7/TB", "-vsync", "passthrough", "-copyts", "-muxdelay", "0", path)
    elif kind == "after its sound":
        tone = ["-f", "lavfi", "-i", "sine=duration=15"]
        ffmpeg(
            *tone, "-itsoffset", "2.6", "-i", movie, "-map", "1:v", "-map", "0:a", "-c:v", "copy", "-c:a", "aac", path
        )
    elif kind == "truncated":
        ffmpeg("-i", movie, "-c", "copy", "-movflags", "faststart", path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    elif kind == "rotated":
        ffmpeg("-i", movie, "-c", "copy", "-metadata:s:v:0", "rotate=90", path)
    elif kind == "vp9":
        ffmpeg("-t", "6", "-i", movie, "-c:v", "libvpx-vp9", "-speed", "8", path)
    elif kind == "avi":
        ffmpeg("-t", "6", "-i", movie, "-c:v", "mpeg4", "-bf", "2", path)
    return path


KINDS = ["b-frames", "variable", "edit list", "late start", "after its sound", "truncated", "rotated", "vp9", "avi"]


@pytest.fixture(scope="module", params=KINDS)
def file(request, movie, tmp_path_factory, ffmpeg):
    return awkward(request.param, movie, tmp_path_factory.mktemp("awkward"), ffmpeg)


def probed_times(file, ffmpeg):
    """Return the times of all frames as ffprobe has them, from where the file's first stream begins."""
    fields = "frame=best_effort_timestamp_time:format=start_time"
    found = json.loads(
        ffmpeg("-select_streams", "v", "-show_entries", fields, "-of", "json", file, binary="ffprobe").decode()
    )
    start = float(found["format"]["start_time"])
    return [float(each.get("best_effort_timestamp_time", "nan")) - start for each in found["frames"]]


def test_frames_and_times_are_ffmpegs(file, ffmpeg):
    read = [(time, upright(frame, 0, "crop")) for time, frame in Video(file).frames()]
    times = probed_times(file, ffmpeg)
    # Of a file that is cut off, the frames that the decoder's threads are at are lost with the broken one.
    assert len(times) - len(read) in range(16 if file.stem == "truncated" else 1)
    ours, known = np.array([time for time, _ in read]), np.array(times[: len(read)])
    assert np.isnan(known).sum() <= 2  # AVI says no time of its last frames
    assert np.allclose(ours[~np.isnan(known)], known[~np.isnan(known)], atol=2e-3) and (np.diff(ours) > 0).all()
    raw = ["-vsync", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-sws_flags", "bicubic"]
    theirs = np.frombuffer(ffmpeg("-i", file, *raw, "-"), np.uint8)
    ours = np.stack([picture for _, picture in read])
    assert theirs.size == ours[0].size * len(times)
    difference = np.abs(theirs[: ours.size].reshape(ours.shape).astype(int) - ours)
    assert difference.mean() < 1 and difference.max() <= 60  # rounding, and colors at edges of a turned picture


def sampled(file, clip_seconds, rate, size=0):
    sampler, video = ClipSampler(clip_seconds, rate, size, "crop"), Video(file)
    clips = [clip for time, frame in video.frames() for clip in sampler.add(time, frame)]
    return [*clips, *sampler.finish(video.duration)], video


@pytest.mark.parametrize("clip_seconds, rate", RATES)
def test_samples_are_those_of_ffmpegs_filter(file, clip_seconds, rate, ffmpeg):
    clips, video = sampled(file, clip_seconds, rate)
    samples = np.concatenate(clips)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-sws_flags", "bicubic"]
    theirs = np.frombuffer(ffmpeg("-i", file, "-vf", f"fps={rate}", *raw, "-"), np.uint8).reshape(
        -1, *samples.shape[1:]
    )
    assert len(clips) == max(1, int(video.duration / clip_seconds + 0.5))
    both = min(len(theirs), len(samples))
    assert abs(len(theirs) - round(video.duration * rate)) <= 1 and both >= len(samples) - clips[0].shape[0]
    # Where ffmpeg's own rounding of a time to its time base falls on the other side of a sample's edge, it takes the
    # next frame: such pictures are near, and few.
    far = np.abs(theirs[:both].astype(int) - samples[:both]).mean(axis=(1, 2, 3))
    assert (far < 1).mean() > 0.9 and far.max() < 12


def test_a_clip_is_the_frame_of_its_middle(movie):
    clips, _ = sampled(movie, 2.0, 0.5)
    frames = [(time, upright(frame, 0, "crop")) for time, frame in Video(movie).frames()]
    for number, clip in enumerate(clips):
        middle = 2.0 * number + 1.0
        slow = [picture for time, picture in frames if time < middle][-1]
        assert (clip[0] == slow).all()
    assert len(clips) == 8  # 15.5 s: of the last clip, 1.5 s are there


def test_pictures_become_squares(movie):
    _, frame = next(Video(movie).frames())
    assert upright(frame, 32, "crop").shape == upright(frame, 32, "squash").shape == (32, 32, 3)
    assert upright(frame, 0, "crop").shape == (48, 64, 3)


def test_a_rotated_video_stands_upright(movie, tmp_path, ffmpeg):
    turned = awkward("rotated", movie, tmp_path, ffmpeg)
    _, frame = next(Video(turned).frames())
    assert upright(frame, 0, "crop").shape == (64, 48, 3)


def test_what_is_missing_of_a_file_is_said(movie, tmp_path, ffmpeg):
    video = Video(awkward("truncated", movie, tmp_path, ffmpeg))
    frames = sum(1 for _ in video.frames())
    assert 20 < frames < 124 and "of 15.5 s" in video.shortfall
    whole = Video(movie)
    assert sum(1 for _ in whole.frames()) == 124 and not whole.shortfall and whole.duration == pytest.approx(15.5)


def test_files_put_one_after_the_other_are_refused(movie, tmp_path, ffmpeg):
    """Each part begins its clock anew: half of the pictures would be lost, or copies made of one."""
    ffmpeg("-i", movie, "-c", "copy", tmp_path / "part.ts")
    ffmpeg("-i", movie, "-c", "copy", "-output_ts_offset", "1000", tmp_path / "later.ts")
    for second in ("part.ts", "later.ts"):
        whole = tmp_path / f"with-{second}"
        whole.write_bytes((tmp_path / "part.ts").read_bytes() + (tmp_path / second).read_bytes())
        with pytest.raises(DataError, match=r"its clock jumps from 15.* -> write it anew, as by ffmpeg"):
            list(Video(whole).frames())
    assert sum(1 for _ in Video(tmp_path / "part.ts").frames()) == 124


def test_files_that_are_no_videos_are_named(movie, tmp_path, ffmpeg):
    sound = tmp_path / "sound.mp4"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", sound)
    text, empty, headless = tmp_path / "text.mp4", tmp_path / "empty.mp4", tmp_path / "headless.mp4"
    text.write_text("not a video " * 100)
    empty.write_bytes(b"")
    headless.write_bytes(movie.read_bytes()[:3000])  # the index of this file is at its end
    for path, what in ((sound, "no video stream"), (text, "cannot be read"), (empty, "cannot"), (headless, "cannot")):
        with pytest.raises(DataError, match=what) as error:
            list(Video(path).frames())
        assert str(path) in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4"):
        Video(tmp_path / "nowhere.mp4")


def test_a_video_without_pictures_is_named(movie, tmp_path, ffmpeg):
    none = tmp_path / "none.mp4"
    ffmpeg("-i", movie, "-c", "copy", "-movflags", "faststart", none)
    data = none.read_bytes()
    none.write_bytes(data[: data.index(b"mdat") + 40])
    with pytest.raises(DataError, match="no picture in it"):
        list(Video(none).frames())


@pytest.mark.parametrize("seconds, rate", [(2.0, 0.25), (1.0, 1.5), (0.3, 1.0)])
def test_part_of_a_frame_per_clip_is_refused(seconds, rate):
    with pytest.raises(UserError, match="whole number"):
        samples_per_clip(seconds, rate)
