"""One video's annotated actions over what its rendered clips show."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from hero_plugin.integrations.figures.style import CYCLE, MUTED, new_figure
from hero_plugin.integrations.timelines.prototypes import Prototypes
from hero_plugin.integrations.timelines.timeline import Timeline

__all__ = ["timeline_figure"]


def timeline_figure(timeline: Timeline, prototypes: Prototypes, features: np.ndarray) -> Figure:
    """Upper panel: the actions as humans annotated them. Lower panel: cosine of each clip (less the video's mean)
    with the prototypes of these actions.

    features: (clips, dim), as `render_video` makes them.
    """
    classes = list(dict.fromkeys(timeline.classes[np.argsort(timeline.starts, kind="stable")].tolist()))
    names = [f"{prototypes.labels[c] or 'action'} ({c})" for c in classes]
    height = 1.4 + 0.32 * max(len(classes), 1)
    figure, axes = new_figure(9.0, 2 * height, 2, 1)
    upper, lower = axes[0][0], axes[1][0]
    for action, start, end in zip(timeline.classes, timeline.starts, timeline.ends, strict=True):
        row = classes.index(int(action))
        upper.barh(row, end - start, left=start, height=0.6, color=CYCLE[row % len(CYCLE)])
    upper.set(title=f"{timeline.video_id}: annotated actions", xlim=(0, timeline.duration))
    centred = features.astype(np.float32) - features.mean(axis=0)
    centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    shown = prototypes.vectors[classes] @ centred.T if classes else np.zeros((1, len(features)))
    limit = max(float(np.abs(shown).max()), 1e-6)
    image = lower.imshow(
        shown,
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        extent=(0, timeline.duration, max(len(classes), 1) - 0.5, -0.5),
    )
    lower.grid(False)
    lower.set(title="Rendered clips: cosine with each action's prototype", xlabel="seconds")
    figure.colorbar(image, ax=lower, fraction=0.03, pad=0.01)
    for axis in (upper, lower):
        axis.set_yticks(range(len(classes)), names, fontsize=8, color=MUTED)
    upper.set_ylim(max(len(classes), 1) - 0.5, -0.5)
    return figure
