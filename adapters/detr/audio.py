"""Audio features beside a clip's video features."""

from __future__ import annotations

import torch
from torch import Tensor


def with_audio(video: Tensor, audio: Tensor | None) -> Tensor:
    """Join audio to the video features: (B, T, Dv) and (B, T, Da), or None without audio -> (B, T, Dv + Da).

    Raises:
        ValueError: audio of other clips than the video's.
    """
    if audio is None:
        return video
    if audio.dim() != 3 or audio.shape[:2] != video.shape[:2]:
        wanted = f"({video.shape[0]}, {video.shape[1]}, Da), with the clips of src_vid"
        raise ValueError(f"src_aud must be {wanted}, got {tuple(audio.shape)}")
    return torch.cat([video, audio], dim=2)
