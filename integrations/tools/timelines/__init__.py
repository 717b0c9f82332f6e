"""Timeline features: real queries, real videos' real action timelines, simulated perception.

Nobody should need gigabytes of I3D features to see real behaviour. From Charades' human action annotations this
renders per-video features into the folder layout that real features come in.
"""

from __future__ import annotations

from hero_plugin.integrations.tools.timelines.descriptions import (
    described_timelines,
    reach,
    sentence_meanings,
    two_writers,
)
from hero_plugin.integrations.tools.timelines.folder import Rendered, render_folder
from hero_plugin.integrations.tools.timelines.render import (
    CLASSES,
    Prototypes,
    Timeline,
    TimelineConfig,
    build_prototypes,
    load_timelines,
    render_video,
    timeline_features,
)

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
