"""Timeline features: real queries, real videos' real action timelines, simulated perception.

Nobody should need gigabytes of I3D features to see real behaviour. From Charades' human action annotations this
renders per-video features into the folder layout that real features come in.
"""

from hero_plugin.integrations.tools.timelines.render import (
    Renderer,
    Timeline,
    TimelineConfig,
    build_prototypes,
    load_timelines,
    render_folder,
)

__all__ = ["Renderer", "Timeline", "TimelineConfig", "build_prototypes", "load_timelines", "render_folder"]
