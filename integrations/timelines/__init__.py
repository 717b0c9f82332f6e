"""Timeline features: real queries, real videos' real action timelines, simulated perception.

Nobody should need gigabytes of I3D features to see real behaviour. From Charades' human action annotations this
renders per-video features into the folder layout that real features come in.
"""

from __future__ import annotations

from hero_plugin.integrations.timelines.config import TimelineConfig
from hero_plugin.integrations.timelines.descriptions import described_timelines, sentence_meanings, two_writers
from hero_plugin.integrations.timelines.folder import Rendered, render_folder
from hero_plugin.integrations.timelines.prototypes import Prototypes, build_prototypes
from hero_plugin.integrations.timelines.reach import reach
from hero_plugin.integrations.timelines.render import render_video, timeline_features
from hero_plugin.integrations.timelines.timeline import CLASSES, Timeline, load_timelines

__all__ = [
    "CLASSES",
    "Prototypes",
    "Rendered",
    "Timeline",
    "TimelineConfig",
    "build_prototypes",
    "described_timelines",
    "load_timelines",
    "reach",
    "render_folder",
    "render_video",
    "sentence_meanings",
    "timeline_features",
    "two_writers",
]
