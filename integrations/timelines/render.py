"""From one video's timeline to its clip features: what an imperfect action recogniser might have seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from hero_plugin.integrations.features import MemoryFeatures
from hero_plugin.integrations.timelines.config import TimelineConfig
from hero_plugin.integrations.timelines.prototypes import Prototypes
from hero_plugin.integrations.timelines.seeds import generator
from hero_plugin.integrations.timelines.timeline import Timeline

__all__ = ["render_video", "timeline_features"]


def render_video(
    timeline: Timeline,
    prototypes: Prototypes,
    config: TimelineConfig | None = None,
    seed: int = 0,
    video_id: str | None = None,
) -> np.ndarray:
    """Features float32 (clips, dim) of one video.

    A clip is the sum of the prototypes of the actions seen in it, each a little different in every video and
    faded in and out around misjudged boundaries; plus a part of the video's mean signal, a vector of the
    video's own, and noise that changes slowly. Depends on (timeline, prototypes, config, seed, video_id) alone;
    `video_id` is the timeline's unless given. The random draws do not depend on the strengths, so that two
    settings of `config.noise` show the same video, more and less clearly.
    """
    config = config or TimelineConfig()
    if prototypes.dim != config.dim:
        raise ValueError(f"the prototypes are {prototypes.dim} wide, config.dim is {config.dim}: build them anew")
    video = timeline.video_id if video_id is None else video_id
    clips, dim, noise = config.clips(timeline.duration), config.dim, config.noise
    classes, starts, ends, strength = _seen(
        timeline, config, len(prototypes.vectors), generator(seed, video, "actions")
    )
    looks = prototypes.vectors[classes]
    if len(classes):
        own = generator(seed, video, "looks").standard_normal((len(classes), dim), dtype=np.float32)
        looks = looks + own * np.float32(noise * config.appearance / dim**0.5)
    times = (np.arange(clips) + 0.5) * (timeline.duration / clips)
    blur = max(noise * config.boundary_blur, 1e-6)
    rise = _logistic((times[:, None] - starts) / blur)
    shown = rise * _logistic((ends - times[:, None]) / blur) * strength  # (clips, actions)
    features = shown.astype(np.float32) @ looks
    features += np.float32(noise * config.context) * features.mean(axis=0)
    nuisance = generator(seed, video, "nuisance").standard_normal(dim, dtype=np.float32)
    features += nuisance * np.float32(noise * config.nuisance / dim**0.5)
    wander = generator(seed, video, "clips").standard_normal((clips, dim), dtype=np.float32)
    features += _slow(wander, timeline.duration / clips, config) * np.float32(noise * config.clip_noise / dim**0.5)
    return features * np.float32(config.scale())


def timeline_features(
    timelines: Mapping[str, Timeline],
    prototypes: Prototypes,
    config: TimelineConfig | None = None,
    *,
    seed: int = 0,
    videos: Iterable[str] | None = None,
) -> MemoryFeatures:
    """Features of some or all videos, in memory, as a feature store."""
    wanted = timelines if videos is None else videos
    arrays = {video: render_video(timelines[video], prototypes, config, seed) for video in wanted}
    return MemoryFeatures(arrays, "timeline features")


def _seen(
    timeline: Timeline, config: TimelineConfig, kinds: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Classes, starts, ends and strengths of the actions that are seen, true and false (any of ``kinds``)."""
    count, duration, noise = len(timeline.classes), timeline.duration, config.noise
    chance, errors, levels = rng.random(count), rng.standard_normal((2, count)), rng.standard_normal(count)
    kept = chance >= 1 - (1 - config.miss_rate) ** noise
    jitter = errors * (noise * config.boundary_jitter)
    starts, ends = timeline.starts + jitter[0], timeline.ends + jitter[1]
    swapped = ends <= starts  # jitter as long as the action itself
    middle = (timeline.starts + timeline.ends) / 2
    starts, ends = np.where(swapped, middle - 0.25, starts), np.where(swapped, middle + 0.25, ends)
    # False actions: a Poisson number of them, drawn by comparing fixed draws with the rate.
    gaps = np.cumsum(rng.standard_exponential(16))
    false = int((gaps < noise * config.false_rate).sum())
    false_classes = rng.integers(0, kinds, 16)[:false]
    begins, lengths = rng.random(16)[:false] * duration, (0.1 + 0.4 * rng.random(16)[:false]) * duration
    false_starts = np.maximum(begins - lengths / 2, 0)
    strengths = np.exp(noise * config.strength_spread * np.concatenate([levels[kept], rng.standard_normal(16)[:false]]))
    return (
        np.concatenate([timeline.classes[kept], false_classes]),
        np.concatenate([starts[kept], false_starts]),
        np.concatenate([ends[kept], np.minimum(begins + lengths / 2, duration)]),
        strengths,
    )


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def _slow(white: np.ndarray, seconds_per_clip: float, config: TimelineConfig) -> np.ndarray:
    """White noise (clips, dim) made to last, by an autoregression of order one, its size unchanged."""
    if config.noise_seconds <= 0:
        return white
    memory = np.float32(np.exp(-seconds_per_clip / config.noise_seconds))
    fresh = np.float32((1 - float(memory) ** 2) ** 0.5)
    for clip in range(1, len(white)):
        white[clip] *= fresh
        white[clip] += memory * white[clip - 1]
    return white
