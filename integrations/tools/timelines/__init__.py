"""Timeline features: real queries, real videos' real action timelines, simulated perception.

Nobody should need gigabytes of I3D features to see real behaviour. From Charades' human action annotations this
renders per-video features into the folder layout that real features come in.
"""

from __future__ import annotations

from hero_plugin.integrations.tools.timelines.folder import render_folder
from hero_plugin.integrations.tools.timelines.render import (
    Timeline,
    TimelineConfig,
    build_prototypes,
    load_timelines,
    render_video,
    timeline_features,
)

__all__ = [
    "Timeline",
    "TimelineConfig",
    "build_prototypes",
    "load_timelines",
    "render_folder",
    "render_video",
    "timeline_features",
]
