"""The oracle: how much of a moment is found in rendered clips by someone who knows which action the query means.

A linear classifier of the 157 actions is fitted on clips of training videos. For each query, the action that its
moment overlaps best is looked up (no model knows it), its score over the clips is smoothed, and the
stretch of clips that stays above a level is the answer. Simple and strong rather than a true upper bound: it shows
how clear the features are, apart from how well anybody reads the queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from hero_plugin.integrations.data import Record
from hero_plugin.integrations.scoring.metrics import grounding_scores
from hero_plugin.integrations.support import DataError, Problem
from hero_plugin.integrations.support.plotting import CYCLE, MUTED, new_figure
from hero_plugin.integrations.tools.timelines.render import CLASSES, SAME_VIDEOS, Renderer, Timeline

_LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_WINDOW = 3  # clips of the running mean
_VIDEOS, _RIDGE = 1200, 0.01  # of the fit


@dataclass(frozen=True)
class Oracle:
    """A linear classifier of the actions, which grounds them.

    Attributes:
        weights: (dim, 157).
        mean: (dim,) of the clips that it was fitted on.
        level: Where, between a video's low and high scores, the answer begins.
    """

    weights: np.ndarray
    mean: np.ndarray
    level: float

    def ground(self, features: np.ndarray, action: int) -> tuple[int, int]:
        """Return the first clip and the end clip (exclusive) of the stretch that shows the action best."""
        scores = (features - self.mean) @ self.weights[:, action]
        scores = np.convolve(np.pad(scores, _WINDOW // 2, mode="edge"), np.ones(_WINDOW) / _WINDOW, "valid")
        low, high = np.quantile(scores, (0.1, 0.95))
        return _best_stretch(scores - (low + self.level * (high - low)))


def fit_oracle(records: Sequence[Record], timelines: Mapping[str, Timeline], renderer: Renderer) -> Oracle:
    """Fit the classifier (ridge regression) on the first training videos, then choose the level."""
    names = sorted({record.video_id for record in records if record.video_id in timelines})[:_VIDEOS]
    if not names:
        raise DataError([Problem("training records", "no video has a timeline", SAME_VIDEOS)])
    clips, shown = [], []
    for name in names:
        timeline = timelines[name]
        features = renderer(timeline)
        times = (np.arange(len(features)) + 0.5) * (timeline.duration / len(features))
        active = np.zeros((len(features), CLASSES), np.float32)
        for action, start, end in zip(timeline.classes, timeline.starts, timeline.ends, strict=True):
            active[(times >= start) & (times < end), action] = 1
        clips.append(features)
        shown.append(active)
    inputs, targets = np.concatenate(clips), np.concatenate(shown)
    mean = inputs.mean(axis=0)
    inputs = inputs - mean
    gram = inputs.T @ inputs + _RIDGE * len(inputs) * np.eye(inputs.shape[1], dtype=np.float32)
    weights = np.linalg.solve(gram, inputs.T @ (targets - targets.mean(axis=0)))
    sample = [record for record in records if record.video_id in set(names)][:1000]
    oracles = (Oracle(weights, mean, level) for level in _LEVELS)
    return max(oracles, key=lambda oracle: oracle_scores(oracle, sample, timelines, renderer)["mIoU"])


def oracle_scores(
    oracle: Oracle, records: Sequence[Record], timelines: Mapping[str, Timeline], renderer: Renderer
) -> dict[str, float]:
    """Return the scores of the queries whose video has an action overlapping the moment, in percent."""
    found, truth = [], []
    rendered: dict[str, np.ndarray] = {}
    for record in records:
        timeline = timelines.get(record.video_id)
        if timeline is None or not record.moments or not len(timeline.classes):
            continue
        overlaps = timeline.overlaps(*record.moments[0])
        if record.video_id not in rendered:
            rendered[record.video_id] = renderer(timeline)
        features = rendered[record.video_id]
        first, end = oracle.ground(features, int(timeline.classes[overlaps.argmax()]))
        found.append(np.array([first, end]) * (timeline.duration / len(features)))
        truth.append(record.moments[0])
    if not found:
        raise DataError([Problem("records", "no query's video has a timeline", SAME_VIDEOS)])
    return grounding_scores(np.array(found), np.array(truth))


def _best_stretch(gains: np.ndarray) -> tuple[int, int]:
    """Return the stretch (first, end) of greatest sum."""
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    lowest = np.minimum.accumulate(totals[:-1])
    end = int(np.argmax(totals[1:] - lowest)) + 1
    return int(np.argmin(totals[:end])), end


def timeline_figure(timeline: Timeline, renderer: Renderer) -> Figure:
    """Draw a video's actions as humans annotated them, over what its rendered clips show of them.

    The lower panel has the cosine of each clip (less the video's mean) with the prototypes of these actions.
    """
    prototypes, features = renderer.prototypes, renderer(timeline)
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
    extent = (0, timeline.duration, max(len(classes), 1) - 0.5, -0.5)
    style = {"aspect": "auto", "interpolation": "nearest", "cmap": "RdBu_r"}
    image = lower.imshow(shown, vmin=-limit, vmax=limit, extent=extent, **style)
    lower.grid(False)
    lower.set(title="Rendered clips: cosine with each action's prototype", xlabel="seconds")
    figure.colorbar(image, ax=lower, fraction=0.03, pad=0.01)
    for axis in (upper, lower):
        axis.set_yticks(range(len(classes)), names, fontsize=8, color=MUTED)
    upper.set_ylim(max(len(classes), 1) - 0.5, -0.5)
    return figure
