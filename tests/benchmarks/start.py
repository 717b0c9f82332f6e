"""The distance of a freshly wrapped base's predictions from the base's.

``python -m tests.benchmarks.start`` prints the largest difference over every output, padding aside, by configuration
and base: reference bases at their published sizes, random weights, no dropout drawn, 4 queries of up to 20 words on
75 clips.
"""

from __future__ import annotations

import torch

from hero_plugin import HeroConfig, wrap_model
from hero_plugin.adapters.detr.config import MomentDETRConfig, QDDETRConfig, TRDETRConfig
from hero_plugin.adapters.emb import EMB, EMBConfig
from hero_plugin.adapters.moment_detr import MomentDETR
from hero_plugin.adapters.qd_detr import QDDETR
from hero_plugin.adapters.tr_detr import TRDETR
from tests.core.bases import lengths_mask, tensors

CONFIGS = {
    "HeroConfig()": HeroConfig(),
    "levels=8": HeroConfig(levels=8),
    "projections=True": HeroConfig(projections=True),
    'relevance="pair"': HeroConfig(relevance="pair"),
    "levels=1": HeroConfig(levels=1),
    "HeroConfig.off()": HeroConfig.off(),
    'gate="sigmoid"': HeroConfig(gate="sigmoid"),
    "normalize=False": HeroConfig(normalize=False),
    "identity_start=False": HeroConfig(identity_start=False),
    "HeroConfig.paper()": HeroConfig.paper(),
}
CLIPS, WORDS = (75, 60, 33, 8), (20, 12, 5, 3)
VIDEO, TEXT = 2818, 512


def bases():
    """Yield title, base and its inputs."""
    clips, words = lengths_mask(CLIPS), lengths_mask(WORDS)
    video, text = torch.randn(*clips.shape, VIDEO), torch.randn(*words.shape, TEXT)
    ids = torch.randint(1, 100, words.shape) * words.long()
    config = EMBConfig(video_feature_dim=VIDEO, word_dim=TEXT)
    yield "EMB", EMB(config, torch.randn(100, TEXT)), (ids, None, video, clips, words)
    for title, model, described in (
        ("Moment-DETR", MomentDETR, MomentDETRConfig),
        ("QD-DETR", QDDETR, QDDETRConfig),
        ("TR-DETR", TRDETR, TRDETRConfig),
    ):
        yield title, model(described(text_dim=TEXT, video_dim=VIDEO)), (text, words, video, clips)


@torch.no_grad()
def gap(base, batch, config) -> float:
    """Return the largest difference between what ``base`` says wrapped and what it says alone."""
    pairs = zip(tensors(base(*batch)), tensors(wrap_model(base, config=config)(*batch)), strict=True)
    real = [(one.double(), other.double(), one > -1e4) for one, other in pairs]
    return float(max((one[there] - other[there]).abs().max() for one, other, there in real if there.any()))


def main() -> None:
    torch.manual_seed(0)
    made = [(title, base.eval(), batch) for title, base, batch in bases()]
    print(f"{'':22}" + "".join(f"{title:>13}" for title, *_ in made))
    for name, config in CONFIGS.items():
        print(f"{name:22}" + "".join(f"{gap(base, batch, config):13.1e}" for _, base, batch in made))


if __name__ == "__main__":
    main()
