"""The sizes and weights of a model of the DETR family, under the names its authors' command lines use."""

from __future__ import annotations

from dataclasses import dataclass

SPAN_LOSSES = ("l1", "ce")


@dataclass(frozen=True)
class DETRConfig:
    """What Moment-DETR, QD-DETR and TR-DETR and their losses read. Defaults are the published ones.

    text_dim, video_dim: widths of the input features (upstream's t_feat_dim and v_feat_dim); video_dim counts
        all that a clip's features are made of: several extractors', the two temporal endpoints, and audio.
    input_dropout, dropout: in the input projections, and in the transformer.
    num_queries: moments that are predicted for each query.
    n_input_proj: layers of each input projection, 1 to 3.
    max_v_l, max_q_l: the largest number of clips (read where span_loss_type is "ce") and of words (where use_txt_pos).
    aux_loss: whether the outputs of the decoder's earlier layers are returned, and trained, too.
    span_loss_type: "l1" predicts (center, width); "ce" a logit for each of max_v_l clips as start and as end
        (Moment-DETR only).
    pre_norm: normalise before each sub-layer, not after it (Moment-DETR only).
    contrastive_align_loss, contrastive_hdim, temperature: the loss that aligns moments and words, off as published.
    clip_length: seconds a clip lasts (TR-DETR).
    vsl_dropout: in TR-DETR's fusion of clips and words; upstream fixes it in the code.
    eos_coef: weight of the queries that match no moment in the classification loss.
    The other `*_coef` and lw_saliency weigh the losses, the `set_cost_*` the matching's costs.

    Raises:
        ValueError: a size that no model can be built with.
    """

    text_dim: int
    video_dim: int
    hidden_dim: int = 256
    nheads: int = 8
    enc_layers: int = 2
    dec_layers: int = 2
    dim_feedforward: int = 1024
    input_dropout: float = 0.5
    dropout: float = 0.1
    num_queries: int = 10
    n_input_proj: int = 2
    max_v_l: int = 75
    max_q_l: int = 32
    use_txt_pos: bool = False
    aux_loss: bool = True
    span_loss_type: str = "l1"
    pre_norm: bool = False
    contrastive_align_loss: bool = False
    contrastive_hdim: int = 64
    temperature: float = 0.07
    clip_length: float = 2
    vsl_dropout: float = 0.1
    span_loss_coef: float = 10
    giou_loss_coef: float = 1
    label_loss_coef: float = 4
    lw_saliency: float = 1
    contrastive_align_loss_coef: float = 0
    eos_coef: float = 0.1
    saliency_margin: float = 0.2
    vtc_loss_coef: float = 1
    ctc_loss_coef: float = 1
    set_cost_span: float = 10
    set_cost_giou: float = 1
    set_cost_class: float = 4

    def __post_init__(self) -> None:
        for name in (
            *("text_dim", "video_dim", "hidden_dim", "nheads", "enc_layers", "dec_layers", "dim_feedforward"),
            *("num_queries", "max_v_l", "max_q_l", "contrastive_hdim"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_dim % self.nheads:
            raise ValueError(f"nheads must divide hidden_dim, got hidden_dim={self.hidden_dim}, nheads={self.nheads}")
        if self.hidden_dim % 4:
            raise ValueError(
                "hidden_dim must be a multiple of 4, for the sines and cosines of a moment's center and width, "
                f"got {self.hidden_dim}"
            )
        for name in ("input_dropout", "dropout", "vsl_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 1 <= self.n_input_proj <= 3:
            raise ValueError(f"n_input_proj must be 1, 2 or 3, got {self.n_input_proj}")
        if self.span_loss_type not in SPAN_LOSSES:
            raise ValueError(f"span_loss_type must be one of {SPAN_LOSSES}, got {self.span_loss_type!r}")
        for name in ("temperature", "clip_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class MomentDETRConfig(DETRConfig):
    """`DETRConfig` for Moment-DETR."""


class QDDETRConfig(DETRConfig):
    """`DETRConfig` for QD-DETR, which regresses spans, and normalises after each sub-layer, only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pre_norm:
            raise ValueError("pre_norm must be False: the text-to-video encoder is defined post-norm only")
        if self.span_loss_type != "l1":
            raise ValueError(
                f"span_loss_type must be 'l1': spans are corrections of (center, width), got {self.span_loss_type!r}"
            )


class TRDETRConfig(QDDETRConfig):
    """`DETRConfig` for TR-DETR, which shares QD-DETR's restrictions."""
