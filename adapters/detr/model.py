"""Common parts of the DETR family's models: input projections, positions and prediction heads."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import Dropout
from hero_plugin.adapters.detr.config import DETRConfig


def sines(angle: Tensor, width: int) -> Tensor:
    """Return sine and cosine of ``angle``, in radians, at width / 2 frequencies from 1 down: (...) -> (..., width)."""
    # Not the core's sinusoid: its exp(-i log 10000) rounds otherwise than this power, which upstream takes.
    exponent = 2 * torch.arange(width // 2, dtype=torch.float32, device=angle.device) / width
    angles = angle.unsqueeze(-1) / 10000**exponent  # the ratio of the highest to the lowest frequency, nearly
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def span_sines(spans: Tensor, width: int) -> Tensor:
    """Encode moments: (..., 2) of (center, width) in [0, 1] -> (..., width), half for either number."""
    return sines(spans * 2 * math.pi, width // 2).flatten(-2)


class PositionEmbeddingSine(nn.Module):
    """Sinusoidal positions of clips: a clip's place among the real clips, scaled to (0, 2π]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode positions: x (B, L, D) is not read; mask (B, L), 1 where real -> (B, L, dim) in float32."""
        place = mask.cumsum(1, dtype=torch.float32)
        return sines(place / (place[:, -1:] + 1e-6) * 2 * math.pi, self.dim)


class TrainablePositionalEncoding(nn.Module):
    """Learned positions of words, added and normalised."""

    def __init__(self, max_length: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_length, dim)
        self.LayerNorm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Add positions and normalise: (B, L, D) -> (B, L, D).

        Raises:
            ValueError: L exceeds the table.
        """
        length, limit = x.shape[1], self.position_embeddings.num_embeddings
        if length > limit:
            raise ValueError(f"a query of {length} words is longer than max_q_l={limit}: raise it in the config")
        return self.dropout(self.LayerNorm(x + self.position_embeddings.weight[:length]))


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers: (..., in_dim) -> (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class LinearLayer(nn.Module):
    """Layer normalisation, dropout and a linear layer, optionally with ReLU."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float, relu: bool) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(in_dim)
        self.net = nn.Sequential(Dropout(dropout), nn.Linear(in_dim, out_dim))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Project: (..., in_dim) -> (..., out_dim)."""
        x = self.net(self.LayerNorm(x))
        return x.relu() if self.relu else x


class InputProjection(nn.Sequential):
    """Projection of clip or word features to the model's width; ReLU after every layer but the last."""

    def __init__(self, in_dim: int, out_dim: int, num_layers: int, dropout: float) -> None:
        last = num_layers - 1
        super().__init__(
            *(LinearLayer(out_dim if i else in_dim, out_dim, dropout, relu=i < last) for i in range(num_layers))
        )
        self.in_dim = in_dim

    def forward(self, input: Tensor) -> Tensor:
        """Project: (B, L, in_dim) -> (B, L, out_dim); with levels of words, (B, L, N, in_dim) -> (B, L, N, out_dim).

        Raises:
            ValueError: features of another width.
        """
        if input.dim() not in (3, 4) or input.shape[-1] != self.in_dim:
            raise ValueError(
                f"features must be (B, L, {self.in_dim}), got {tuple(input.shape)}; "
                "text_dim or video_dim in the config must be the features' width"
            )
        return super().forward(input)


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Return the logits of probabilities, between about -6.9 and 6.9; the shape stays."""
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def summed_projection(linear: nn.Linear, x: Tensor) -> Tensor:
    """Return ``linear(x).sum(-1)`` for the cost of one output instead of all: (..., D) -> (...)."""
    return F.linear(x, linear.weight.sum(0, keepdim=True), linear.bias.sum().unsqueeze(0)).squeeze(-1)


def xavier_(module: nn.Module) -> None:
    """Draw every matrix in ``module`` from Xavier's uniform distribution; vectors keep their values."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)


Outputs = dict[str, Any]


class DETR(nn.Module):
    """Base class: projects clips and words to one width, and reads predictions from a decoder's states.

    A model of the family sets ``transformer``, and adds its own parts and ``forward``, which takes ``src_txt``, word
    features (B, L, text_dim), ``src_vid``, clip features (B, T, video_dim), and their masks ``src_txt_mask`` (B, L) and
    ``src_vid_mask`` (B, T), 1 where real. QD-DETR and TR-DETR also take ``src_aud`` (B, T, Da), a part of video_dim,
    and its mask, which is ignored, as upstream. Shapes that do not fit are a ``ValueError``.

    Args:
        config: sizes and losses.
        query_dim: numbers per learned query: the width, or 2 where it is a reference moment.
    """

    def __init__(self, config: DETRConfig, query_dim: int) -> None:
        super().__init__()
        self.config = config
        self.span_loss_type, self.aux_loss = config.span_loss_type, config.aux_loss
        self.use_txt_pos, self.contrastive_align_loss = config.use_txt_pos, config.contrastive_align_loss
        dim = config.hidden_dim
        self.position_embed = PositionEmbeddingSine(dim)
        self.txt_position_embed = TrainablePositionalEncoding(config.max_q_l, dim, config.input_dropout)
        self.input_txt_proj = InputProjection(config.text_dim, dim, config.n_input_proj, config.input_dropout)
        self.input_vid_proj = InputProjection(config.video_dim, dim, config.n_input_proj, config.input_dropout)
        self.query_embed = nn.Embedding(config.num_queries, query_dim)
        self.span_embed = MLP(dim, dim, 2 if config.span_loss_type == "l1" else 2 * config.max_v_l, 3)
        self.class_embed = nn.Linear(dim, 2)  # foreground, background
        if config.contrastive_align_loss:
            self.contrastive_align_projection_query = nn.Linear(dim, config.contrastive_hdim)
            self.contrastive_align_projection_txt = nn.Linear(dim, config.contrastive_hdim)
            self.contrastive_align_projection_vid = nn.Linear(dim, config.contrastive_hdim)

    def project(
        self, text: Tensor, text_mask: Tensor, video: Tensor, video_mask: Tensor, audio: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Project clips and words: the arguments of ``forward`` -> (B, T, D), (B, L, D).

        Raises:
            ValueError: shapes that do not fit together, or an empty one.
        """
        for name, features, mask in (("src_txt", text, text_mask), ("src_vid", video, video_mask)):
            if features.dim() != 3 or 0 in features.shape:
                raise ValueError(f"{name} must be (batch, length, width), none of them 0, got {tuple(features.shape)}")
            wanted = tuple(features.shape[:2])
            if mask.shape != wanted:
                raise ValueError(
                    f"{name}_mask must be {wanted}, one number per position of {name}, got {tuple(mask.shape)}"
                )
        batch, clips, _ = video.shape
        if len(text) != batch:
            raise ValueError(f"src_txt and src_vid must share the batch size, got {len(text)} and {batch}")
        if audio is not None:
            if audio.dim() != 3 or audio.shape[:2] != (batch, clips):
                raise ValueError(
                    f"src_aud must be ({batch}, {clips}, Da), with the clips of src_vid, got {tuple(audio.shape)}"
                )
            video = torch.cat([video, audio], dim=2)
        return self.input_vid_proj(video), self.input_txt_proj(text)

    def positions(self, video: Tensor, video_mask: Tensor, text: Tensor) -> Tensor:
        """Return the positions of clips and words in one sequence; words have zeros unless ``use_txt_pos``.

        video (B, T, D), video_mask (B, T), 1 where real, text (B, L, D) -> (B, T + L, D).
        """
        of_words = self.txt_position_embed(text) if self.use_txt_pos else torch.zeros_like(text)
        # Not the clips' type: under autocast they may be half precision already.
        of_clips = self.position_embed(video, video_mask).to(self.query_embed.weight.dtype)
        return torch.cat([of_clips, of_words], dim=1)

    def predictions(self, states: Tensor, video: Tensor, text: Tensor, references: Tensor | None = None) -> Outputs:
        """Read the outputs from the decoder's states.

        Args:
            states: (layers, B, queries, D).
            video: (B, T, D), the encoder's memory of the clips.
            text: (B, words, D), the encoder's memory of the words.
            references: (layers, B, queries, 2), logits of the moments that the spans correct; None for no correction.

        Returns:
            pred_logits (B, queries, 2); pred_spans (B, queries, 2) of (center, width), in [0, 1], or logits
            (B, queries, 2·max_v_l) where span_loss_type is "ce"; with ``contrastive_align_loss`` proj_queries,
            proj_txt_mem and proj_vid_mem, of unit length; with ``aux_loss`` aux_outputs, these for each earlier layer.
        """
        logits, spans = self.class_embed(states), self.span_embed(states)
        if references is not None:
            spans = spans + references
        if self.span_loss_type == "l1":
            spans = spans.sigmoid()
        by_layer = [{"pred_logits": a, "pred_spans": b} for a, b in zip(logits, spans, strict=True)]
        outputs: Outputs = by_layer.pop()
        if self.contrastive_align_loss:
            queries = F.normalize(self.contrastive_align_projection_query(states), dim=-1)
            words = F.normalize(self.contrastive_align_projection_txt(text), dim=-1)
            clips = F.normalize(self.contrastive_align_projection_vid(video), dim=-1)
            outputs |= {"proj_queries": queries[-1], "proj_txt_mem": words, "proj_vid_mem": clips}
            for of_layer, layer_queries in zip(by_layer, queries[:-1], strict=True):
                of_layer |= {"proj_queries": layer_queries, "proj_txt_mem": words}
        if self.aux_loss:
            outputs["aux_outputs"] = by_layer
        return outputs
