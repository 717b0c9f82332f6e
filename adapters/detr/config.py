"""Sizes and loss weights of the DETR family, under the names of its authors' command lines."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DETRHyperparameters:
    """Sizes of a DETR, and weights of its losses and of its matching."""

    hidden_dim: int = 256
    """Hidden size; a multiple of 4 and of nheads."""
    nheads: int = 8
    """Attention heads."""
    enc_layers: int = 2
    """Encoder layers."""
    dec_layers: int = 2
    """Decoder layers."""
    dim_feedforward: int = 1024
    """Hidden size of the feed-forward parts."""
    input_dropout: float = 0.5
    """Dropout on the inputs."""
    dropout: float = 0.1
    """Dropout in the Transformer."""
    num_queries: int = 10
    """Moments predicted for each query."""
    n_input_proj: int = 2
    """Layers that project the inputs."""
    use_txt_pos: bool = False
    """Tell the Transformer where a word stands."""
    aux_loss: bool = True
    """Losses on every decoder layer, not only the last."""

    span_loss_coef: float = 10.0
    """Weight of the L1 distance of centers and widths."""
    giou_loss_coef: float = 1.0
    """Weight of the generalized overlap."""
    label_loss_coef: float = 4.0
    """Weight of the foreground classification."""
    lw_saliency: float = 1.0
    """Weight of the saliency loss (lighthouse takes 4 on Charades-STA)."""
    eos_coef: float = 0.1
    """Weight of the background class within the classification."""
    saliency_margin: float = 0.2
    """How much higher a clip inside must score than one outside."""
    set_cost_span: float = 10.0
    """Weight of the L1 distance when predictions are matched with annotations."""
    set_cost_giou: float = 1.0
    """Weight of the generalized overlap there."""
    set_cost_class: float = 4.0
    """Weight of the foreground probability there."""


@dataclass(frozen=True)
class MomentDETRHyperparameters:
    """What only Moment-DETR has."""

    pre_norm: bool = False
    """Normalise before each sublayer, not after it."""
    contrastive_align_loss: bool = False
    """Also pull matched predictions and the query's words together."""
    contrastive_align_loss_coef: float = 0.0
    """Weight of that loss (its authors' experiments take 0.02)."""
    contrastive_hdim: int = 64
    """Width of what it compares."""
    temperature: float = 0.07
    """Its temperature."""


@dataclass(frozen=True)
class DETRConfig(MomentDETRHyperparameters, DETRHyperparameters):
    """What Moment-DETR, QD-DETR and TR-DETR and their losses read. Defaults are the published ones.

    Raises:
        ValueError: A size that no model can be built with.
    """

    text_dim: int = field(kw_only=True)
    """Width of a word's features (upstream's t_feat_dim)."""
    video_dim: int = field(kw_only=True)
    """Width of all that a clip's features are made of: several extractors', the two temporal endpoints, and audio
    (upstream's v_feat_dim)."""
    max_v_l: int = 75
    """The largest number of clips; read where span_loss_type is "ce"."""
    max_q_l: int = 32
    """The largest number of words; read where use_txt_pos."""
    span_loss_type: str = "l1"
    """With "l1" a span is (center, width); with "ce" a logit for each of max_v_l clips as its start, and as its end
    (Moment-DETR only)."""
    clip_length: float = 2.0
    """Seconds a clip lasts (TR-DETR)."""
    vsl_dropout: float = 0.1
    """Dropout in TR-DETR's fusion of clips and words; upstream fixes it in the code."""
    vtc_loss_coef: float = 1.0
    """Weight of TR-DETR's loss between whole videos and queries."""
    ctc_loss_coef: float = 1.0
    """Weight of TR-DETR's loss between clips and queries."""

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
        if self.span_loss_type not in ("l1", "ce"):
            raise ValueError(f"span_loss_type must be one of ('l1', 'ce'), got {self.span_loss_type!r}")
        for name in ("temperature", "clip_length"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class MomentDETRConfig(DETRConfig):
    """``DETRConfig`` for Moment-DETR."""


class QDDETRConfig(DETRConfig):
    """``DETRConfig`` for QD-DETR, which regresses spans, and normalises after each sub-layer, only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pre_norm:
            raise ValueError("pre_norm must be False: the text-to-video encoder is defined post-norm only")
        if self.span_loss_type != "l1":
            raise ValueError(
                f"span_loss_type must be 'l1': spans are corrections of (center, width), got {self.span_loss_type!r}"
            )


class TRDETRConfig(QDDETRConfig):
    """``DETRConfig`` for TR-DETR, which shares QD-DETR's restrictions."""
