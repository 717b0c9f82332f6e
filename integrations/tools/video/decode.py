"""Video files, decoded by PyAV frame by frame: upright pictures with their times, and clips of sampled frames.

Sampling is that of ffmpeg's filter ``fps``, by which the published features were made: sample k of r a second is the
last frame that begins before (k + 1/2) / r. With one sample per clip that is the frame in the clip's middle.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hero_plugin.integrations.support import DataError, Problem, UserError

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp")
STREAMS = ("mpegts", "mpeg")
"""Formats of .ts and .mpg, which have no index, and whose files may be put one after the other."""
JUMP = 10.0
"""Seconds between two pictures of such a file that are a clock set anew, and no picture that stays."""
Fit = Literal["crop", "squash"]
"""How a picture becomes a square: its middle is cut out, or all of it is squeezed."""


def need_av() -> Any:
    """Return PyAV; raise ``UserError`` where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError(f'videos need PyAV ({error}): pip install "hero-plugin[video]"') from error
    return av


def broken(path: Path, what: str, fix: str = "check that it plays, or leave it out") -> DataError:
    """Return the error about one video file."""
    return DataError([Problem(str(path), what, fix)])


@dataclass
class Video:
    """One video file, read once from its start to its end."""

    path: Path
    duration: float = 0.0
    """Seconds, as the file says before it is read, and from its frames once it is."""
    frames_read: int = 0
    damaged: int = 0
    """Packets that could not be decoded, which are skipped as ffmpeg skips them."""

    def __post_init__(self) -> None:
        with self._open() as container:
            av, stream = need_av(), container.streams.video[0]
            start = (container.start_time or 0) / av.time_base
            if stream.duration is None:
                self.duration = (container.duration or 0) / av.time_base
            else:
                self.duration = float((stream.duration + (stream.start_time or 0)) * stream.time_base) - start
        self._announced = self.duration

    @property
    def shortfall(self) -> str:
        """Say what is missing of a file that was read to its end, "" if nothing is."""
        damage = f"{self.damaged} damaged packets skipped" if self.damaged else ""
        missing = self._announced - self.duration
        short = f"ends after {self.duration:.1f} s of {self._announced:.1f} s" if missing > 1 else ""
        return ", ".join(filter(None, (short, damage)))

    def frames(self) -> Iterator[tuple[float, Any]]:
        """Yield (time in seconds, PyAV frame) of each picture, in the order in which they are shown.

        Time 0 is where the file's earliest stream begins, as in ffmpeg and in players. Raises ``DataError`` where the
        file cannot be read, has no picture, or its clock jumps.
        """
        av, end = need_av(), 0.0
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start = (container.start_time or 0) / av.time_base
            step = 1 / float(stream.average_rate or stream.base_rate or 25)
            for frame in self._decoded(container, stream):
                time = end if frame.pts is None else max(float(frame.pts * frame.time_base) - start, 0.0)
                if container.format.name in STREAMS and not end - 1 <= time <= end + JUMP:
                    what = f"its clock jumps from {end:.1f} to {time:.1f} s, as in files put one after the other"
                    raise broken(self.path, what, "write it anew, as by ffmpeg -i FILE -c copy NEW.mp4")
                end = max(end, time + (float(frame.duration * frame.time_base) if frame.duration else step))
                self.frames_read += 1
                yield time, frame
        if not self.frames_read:
            raise broken(self.path, "no picture in it can be decoded")
        self.duration = end

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        av = need_av()
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the rest of a truncated file; what came before is good
                self.damaged += 1
                packet = None
            try:
                yield from stream.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self.damaged += 1
            if packet is None:
                return

    def _open(self) -> Any:
        av = need_av()
        try:
            container = av.open(str(self.path))
        except FileNotFoundError:
            raise FileNotFoundError(f"no video at {self.path}") from None
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, IsADirectoryError | PermissionError):
                raise
            what = f"cannot be read as a video ({getattr(error, 'strerror', None) or error})"
            raise broken(self.path, f"{what}: damaged, cut off, or something else") from error
        if not container.streams.video:
            container.close()
            raise broken(self.path, "has no video stream", "leave it out")
        return container


class ClipSampler:
    """Clips of sampled frames, made while a video goes by; it holds one clip and one frame.

    Pictures become squares of ``size`` pixels a side; 0 leaves them as they are.
    """

    def __init__(self, clip_seconds: float, frames_per_second: float, size: int, fit: Fit) -> None:
        self.rate, self.size, self.fit = frames_per_second, size, fit
        self.clip_seconds, self.per_clip = clip_seconds, samples_per_clip(clip_seconds, frames_per_second)
        self.clips = 0
        self._samples: list[np.ndarray] = []
        self._last: Any = None
        self._next = 0

    def add(self, time: float, frame: Any) -> Iterator[np.ndarray]:
        """Take the next frame; yield the clips (frames, height, width, 3) uint8 that are complete without it."""
        yield from self._fill(_nearest(time * self.rate))
        self._last = frame

    def finish(self, duration: float) -> Iterator[np.ndarray]:
        """Yield what is left of a video of this duration: a last clip counts where at least half of it is there."""
        yield from self._fill(max(_nearest(duration * self.rate), 1))
        wanted = max(_nearest(duration / self.clip_seconds), 1)
        if self._samples and self.clips < wanted:
            self._samples += [self._samples[-1]] * (self.per_clip - len(self._samples))
            yield self._clip()

    def _fill(self, until: int) -> Iterator[np.ndarray]:
        """Take the frame that is shown now for every sample before ``until``."""
        if self._last is None or until <= self._next:
            return
        picture = upright(self._last, self.size, self.fit)
        while self._next < until:
            self._samples.append(picture)
            self._next += 1
            if len(self._samples) == self.per_clip:
                yield self._clip()

    def _clip(self) -> np.ndarray:
        clip, self._samples = np.stack(self._samples), []
        self.clips += 1
        return clip


def samples_per_clip(clip_seconds: float, frames_per_second: float) -> int:
    """Return the number of samples in a clip; raise ``UserError`` where it is not a whole number of at least 1."""
    count = clip_seconds * frames_per_second
    if count < 0.999 or abs(count - round(count)) > 1e-3:
        what = f"{frames_per_second:g} frames per second are {count:.3g} in a clip of {clip_seconds:g} s"
        raise UserError(f"{what}: must be a whole number, 1 or more (--clip-seconds, --frames-per-second)")
    return round(count)


def _nearest(number: float) -> int:
    """Round half up, as ffmpeg does; times are off by rounding themselves."""
    return math.floor(number + 0.5 + 1e-6)


def upright(frame: Any, size: int, fit: Fit) -> np.ndarray:
    """Return a frame as (height, width, 3) uint8 RGB, scaled by swscale's bicubic filter, turned as it is shown."""
    width, height = frame.width, frame.height
    if size and fit == "squash":
        width = height = size
    elif size:
        short = min(width, height)
        width, height = (max(size, width * size // short), max(size, height * size // short))
    array = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    if size:
        top, left = (height - size) // 2, (width - size) // 2
        array = array[top : top + size, left : left + size]
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90)))
