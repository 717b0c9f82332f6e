"""Transformer parts of QD-DETR and TR-DETR."""

from __future__ import annotations

from torch import nn

from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.adapters.detr.decoder import SpanDecoder
from hero_plugin.adapters.detr.encoder import Encoder, TextToVideoEncoder
from hero_plugin.adapters.detr.layers import xavier_
from hero_plugin.adapters.detr.prelu import PReLU


class TextToVideoTransformer(nn.Module):
    """Base class: an encoder in which clips read words, one in which clips read clips, and a decoder of moments.

    A model's own transformer says in ``forward`` in which order they run.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        self.d_model, self.nhead = config.hidden_dim, config.nheads
        self.t2v_encoder = TextToVideoEncoder(config, PReLU)
        self.encoder = Encoder(config, PReLU)
        self.decoder = SpanDecoder(config)
        xavier_(self)
