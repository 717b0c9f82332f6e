"""Adapter of EMB, for the reference implementation and upstream's own class."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import Adapter, Grounding, HeroModel, Pair, PassThrough, Seam
from hero_plugin.aggregation import Kind


def compute_loss(
    model: HeroModel,
    start_logits: Tensor,
    end_logits: Tensor,
    start_labels: Tensor,
    end_labels: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Compute EMB's localization loss plus HERO's two, weighted; the moment's clips are the relevant ones.

    ``model`` is the wrapped EMB, the rest the arguments of EMB's ``compute_loss``: logits (B, T), the moment's first
    and last clip (B,), and what else it takes. HERO's losses are those of the model's last forward, whichever outputs
    these logits are of: compute the losses of a batch before the next one runs.
    """
    base: Any = model.base
    loss = base.compute_loss(start_logits, end_logits, start_labels, end_labels, *args, **kwargs)
    if not model.hero_active:
        return loss
    place = torch.arange(start_logits.shape[1], device=start_logits.device)
    inside = (place >= start_labels.unsqueeze(1)) & (place <= end_labels.unsqueeze(1))
    return loss + model.weighted_hero_loss(inside)


class EMBAdapter(Adapter):
    """Adapter of EMB (Elastic Moment Bounding, ECCV 2022), with the seam at ``video_affine`` and ``embedding_net``.

    Relevance is the highlight score before its sigmoid. ``relate`` runs the frame branch alone: EMB's proposals
    read the frames, but the frames never read the proposals.
    """

    class_names = ("EMB",)
    requires = (
        "video_affine",
        "embedding_net",
        "position",
        *(f"encoder.{part}" for part in ("f2f", "w2w", "f2w", "w2f", "v2v", "vq2q")),
        "fuser1",
        "highlight_layer.conv1d",
        "compute_loss",
        "configs.dim",
    )
    weight_prefixes = ("embedding_net.", "video_affine.", "highlight_layer.")
    width_parameter = "video_affine.linear.conv1d.bias"
    kinds: ClassVar[Mapping[str, Kind]] = {
        "0": "probability",  # h_score
        "1": "logits",  # start_logits
        "2": "logits",  # end_logits
        "3": "shared",  # proposals
        "4": "probability",  # p_score
        "5": "shared",  # p_mask
    }
    methods: ClassVar[Mapping[str, Callable[..., Any]]] = {"compute_loss": compute_loss}

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.highlight = _KeepLogits(base)
        self.of_clips = [_ClipsAlone(base, part) for part in ("encoder.f2f", "encoder.p2p")]
        self.seam = Seam(
            base,
            video_affine=PassThrough(),
            embedding_net=PassThrough(),
            highlight_layer=self.highlight,
            **{each.part: each for each in self.of_clips},
        )

    @property
    def dim(self) -> int:
        """EMB's hidden size."""
        return self.base.configs.dim

    def embed(
        self,
        word_ids: Tensor,
        char_ids: Tensor | None,
        video_features: Tensor,
        v_mask: Tensor,
        q_mask: Tensor,
        moments: Any = None,
    ) -> Pair:
        """Project EMB's inputs: word_ids (B, L), char_ids (B, L, C), video_features (B, T, Dv), two masks."""
        video = self.base.video_affine(video_features)
        query = self.base.embedding_net(word_ids, char_ids)
        # Its recurrent layer counts words from the left: of a query that is padded there it reads padding.
        return Pair(video, query, v_mask, q_mask, {"moments": moments}, reads_padding=True)

    def ground(self, pair: Pair) -> Grounding:
        """Run EMB's own forward from the projected pair on; outputs as EMB returns them."""
        self._expect(pair)
        try:
            outputs = self.seam(pair.query, None, pair.video, pair.video_mask, pair.query_mask, **pair.extra)
            return Grounding(outputs, self.highlight.logits)
        finally:  # also when a recomputation stops half-way: they belong to the graph of one forward
            self.highlight.logits = None

    def relate(self, pair: Pair) -> Tensor:
        """Run the frame branch: relevance logits (B, T).

        Upstream's layers multiply their inputs by masks in place. What they get here is made by ``position``, which
        adds and so copies: the pair's own tensors, which other levels still need, stay whole.
        """
        self._expect(pair)
        base, encoder = self.base, self.base.encoder
        video_mask, query_mask = pair.video_mask, pair.query_mask
        video, query = base.position(pair.video), base.position(pair.query)
        video, query = self.of_clips[0](video, video_mask), encoder.w2w(query, query_mask)
        video, query = (
            encoder.f2w(query, video, query_mask, video_mask),
            encoder.w2f(video, query, video_mask, query_mask),
        )
        video, query = encoder.v2v(video, video_mask), encoder.vq2q(query, query_mask)
        features = base.fuser1(vfeats=video, qfeats=query, vmask=video_mask, qmask=query_mask)
        return base.highlight_layer.conv1d(features).squeeze(-1)

    def _expect(self, pair: Pair) -> None:
        """Let the parts that read clips alone know how often these are repeated."""
        for each in self.of_clips:
            each.repeats = pair.levels if pair.same_video else 1


class _ClipsAlone(nn.Module):
    """A part of EMB's encoder that reads clips and no words: where they are the same at every level, it runs once."""

    def __init__(self, base: Any, part: str) -> None:
        super().__init__()
        self._base = (base,)  # in a tuple, or torch would register it: its part may be replaced later
        self.part = part
        self.repeats = 1

    def forward(self, *args: Any, **named: Any) -> Tensor:
        run = operator.attrgetter(self.part)(self._base[0])
        if self.repeats == 1:
            return run(*args, **named)
        rows = len(args[0]) // self.repeats
        once = run(*(each[:rows] for each in args), **{name: each[:rows] for name, each in named.items()})
        return once.repeat(self.repeats, *[1] * (once.ndim - 1))


class _KeepLogits(nn.Module):
    """Highlight layer that also keeps the logits of the probability it returns."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self._base = (base,)  # in a tuple, or torch would register it: its layer may be replaced later
        self.logits: Tensor | None = None

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        layer = self._base[0].highlight_layer
        self.logits = layer.conv1d(features).squeeze(-1)
        return layer(features, mask)
