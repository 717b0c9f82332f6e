"""How strongly the simulated perception errs: every number of it, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hero_plugin.integrations.errors import UserError

__all__ = ["TimelineConfig", "TimelineConfigError"]


class TimelineConfigError(UserError, ValueError):
    """A strength outside its range."""


@dataclass(frozen=True)
class TimelineConfig:
    """Strengths of timeline features. Lengths are relative to an action's prototype, which has length 1.

    `noise` is the headline: it multiplies every error below it. 0 shows each action exactly as annotated.
    """

    dim: int = 256
    """Width of a clip's feature."""
    clips_per_second: float = 2.0
    """Clip rate; a Charades video of 30 s gets 60 clips."""
    max_clips: int = 128
    """Longer videos get this many, evenly spread (Charades: those over 64 s)."""
    semantic_share: float = 0.5
    """Share of a prototype's energy that comes from the words of training queries; the rest is random."""
    noise: float = 1.0
    """Multiplies all errors: miss and false-action rates, jitter, blur, and the lengths of the noise vectors."""
    miss_rate: float = 0.15
    """Probability that an annotated action is not seen at all."""
    false_rate: float = 0.75
    """Mean number of actions per video that are seen and are not there."""
    boundary_jitter: float = 1.0
    """Standard deviation, in seconds, of the error of each start and end."""
    boundary_blur: float = 0.75
    """Seconds over which an action fades in and out (scale of a logistic curve)."""
    strength_spread: float = 0.35
    """How unequally strongly actions are seen (standard deviation of the logarithm)."""
    appearance: float = 1.0
    """Length of what makes one video's instance of an action look unlike another's."""
    context: float = 0.3
    """Part of a video's mean action signal that shows in all its clips: the scene gives the actions away."""
    nuisance: float = 3.0
    """Length of the per-video vector: camera, room, light."""
    clip_noise: float = 4.5
    """Length of the noise of one clip."""
    noise_seconds: float = 1.5
    """How long clip noise lasts: its correlation falls to 1/e after this time."""

    def __post_init__(self) -> None:
        for name in ("dim", "max_clips"):
            if getattr(self, name) < 1:
                raise TimelineConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not self.clips_per_second > 0:
            raise TimelineConfigError(f"clips_per_second must be positive, got {self.clips_per_second}")
        for name in ("semantic_share", "miss_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise TimelineConfigError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        for name in (
            *("noise", "false_rate", "boundary_jitter", "boundary_blur", "strength_spread"),
            *("appearance", "context", "nuisance", "clip_noise", "noise_seconds"),
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise TimelineConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")

    def clips(self, duration: float) -> int:
        """Number of clips of a video of `duration` seconds."""
        return max(1, min(self.max_clips, round(duration * self.clips_per_second)))

    def scale(self) -> float:
        """What features are multiplied by, so that their numbers are about 1 whatever the noise."""
        energy = 1 + self.noise**2 * (self.appearance**2 + self.nuisance**2 + self.clip_noise**2)
        return float((self.dim / energy) ** 0.5)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for a manifest."""
        return asdict(self)
