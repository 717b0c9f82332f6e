"""TR-DETR: adapter, and reference implementation that loads upstream checkpoints."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import Pair
from hero_plugin.adapters.detr.adapter import DETRAdapter
from hero_plugin.adapters.detr.config import DETRConfig, TRDETRConfig
from hero_plugin.adapters.detr.criterion import SetCriterion
from hero_plugin.adapters.detr.matcher import span_cxw_to_xx
from hero_plugin.adapters.detr.model import DETR, Outputs, inverse_sigmoid, summed_projection
from hero_plugin.adapters.detr.transformer import TextToVideoTransformer, attendable
from hero_plugin.adapters.emb.heads import VSLFuser
from hero_plugin.aggregation import Kind

ALIGNED = ("src_vid_ed", "src_txt_ed", "src_vid_cls_ed", "src_txt_cls_ed")


class TRDETRAdapter(DETRAdapter):
    """Adapter of TR-DETR (AAAI 2024), whose saliency scores read the moments it retrieved: ``relate`` needs all of it.

    The projected features among its outputs (``src_txt_ed`` and the like), which its contrastive losses compare, are
    those before HERO. Clips that their own query has filtered differ from the batch's others by that alone:
    with such clips the loss falls, and the model learns nothing from it (docs/results/tr_detr.md has the figures).
    """

    class_names = ("TRDETR",)
    weight_prefixes = ("input_vid_proj.", "gru_extractor.", "saliency_proj1.")
    more_kinds: ClassVar[Mapping[str, Kind]] = dict.fromkeys(ALIGNED, "logits")
    optional_outputs = (*DETRAdapter.optional_outputs, *ALIGNED)

    def complete(self, outputs: Any, pair: Pair) -> Any:
        """Put in what the contrastive losses compare: clips, words, and their means over all positions, as upstream."""
        before = dict(zip(ALIGNED, (pair.video, pair.query, pair.video.mean(1), pair.query.mean(1)), strict=True))
        return outputs | {name: value for name, value in before.items() if name in outputs}


def best_moment(pred_logits: Tensor, pred_spans: Tensor, clips: int, clip_length: float) -> tuple[Tensor, Tensor]:
    """Find first and last clip, (B,) long each, of the likeliest moment; they may lie outside the video.

    pred_logits (B, queries, 2), foreground first, pred_spans (B, queries, 2) of (center, width) in [0, 1], T, and the
    seconds per clip.
    """
    best = pred_logits.softmax(-1)[..., 0].argmax(-1)
    spans = span_cxw_to_xx(pred_spans[torch.arange(len(best), device=best.device), best])
    # There and back by way of seconds, as upstream: it can round a border into the clip before.
    bounds = (spans * (clips * clip_length) / clip_length).floor().long()
    return bounds[:, 0], bounds[:, 1]


def slice_clips(features: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Take ``features[b, first[b] : last[b] + 1]`` of each sample b, moved to the front and padded with zeros.

    As in Python, a bound below zero counts from the end, so that a moment said to start before its video starts with
    the video's last clips (or holds none). features (B, T, D), bounds (B,) long -> (B, T, D).
    """
    length = features.shape[1]
    start, stop = (torch.where(at < 0, at + length, at).clamp(0, length) for at in (first, last + 1))
    place = start.unsqueeze(1) + torch.arange(length, device=features.device)
    chosen = features.gather(1, place.clamp(max=length - 1).unsqueeze(-1).expand_as(features))
    return chosen.masked_fill((place >= stop.unsqueeze(1)).unsqueeze(-1), 0)


class Transformer(TextToVideoTransformer):
    """TR-DETR's transformer, called as upstream's.

    Clips read the words, then one another, twice, the second time the salient ones louder.
    """

    def forward(
        self,
        src: Tensor,
        mask: Tensor,
        query_embed: Tensor,
        pos_embed: Tensor,
        saliency_proj1: nn.Linear,
        video_length: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode twice and decode.

        src, the clips, then the words, and pos_embed (B, T + L, D), mask (B, T + L), True at padding; query_embed
        (queries, 2), logits of moments; the model's saliency_proj1.

        Returns:
            Decoder states (layers, B, queries, D), their moments (layers, B, queries, 2), and the memory of the clips
            (B, T, D).
        """
        video = self.t2v_encoder(src, mask, pos_embed, video_length)
        mask, pos_embed = mask[:, :video_length], pos_embed[:, :video_length]
        keep = attendable(mask)[:, None, None]
        memory = self.encoder(video, keep, pos_embed)
        saliency = saliency_scores(saliency_proj1, memory)
        # Over padding too, as upstream.
        weighted = video * saliency.softmax(-1).unsqueeze(-1)
        memory = self.encoder(memory + weighted, keep, pos_embed)
        states, references = self.decoder(memory, mask, pos_embed, query_embed)
        return states, references, memory


def saliency_scores(projection: nn.Linear, memory: Tensor) -> Tensor:
    """Score clips by the sum of the projection's outputs, scaled: (B, T, D) -> (B, T)."""
    return summed_projection(projection, memory) / math.sqrt(memory.shape[-1])


class TRDETR(DETR):
    """TR-DETR (Sun et al., AAAI 2024): retrieves moments and scores every clip, each task helping the other.

    Parameters have the names and shapes of the authors' code, so their checkpoints load with ``strict=True``. As there,
    outputs depend slightly on the other samples of a batch: see ``text_to_video_mask``.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__(config, query_dim=2)
        dim = config.hidden_dim
        self.clip_len = config.clip_length
        self.transformer = Transformer(config)
        self.saliency_proj1 = nn.Linear(dim, dim)
        self.fuser = VSLFuser(dim, config.vsl_dropout)
        self.gru_extractor = GRUFeatureExtractor(dim)

    def forward(
        self,
        src_txt: Tensor,
        src_txt_mask: Tensor,
        src_vid: Tensor,
        src_vid_mask: Tensor,
        src_aud: Tensor | None = None,
        src_aud_mask: Tensor | None = None,
    ) -> Outputs:
        """Ground each query in its video.

        Arguments as in ``DETR`` -> its ``predictions``, saliency_scores (B, T), video_mask, which is src_vid_mask, and
        for the losses that align the two modalities the projected features src_vid_ed (B, T, D) and src_txt_ed
        (B, L, D) and their means over all positions, src_vid_cls_ed and src_txt_cls_ed (B, D).
        """
        video, text = self.project(src_txt, src_txt_mask, src_vid, src_vid_mask, src_aud)
        clips = video.shape[1]
        fused = self.fuser(video, text, src_vid_mask, src_txt_mask)
        mask = torch.cat([src_vid_mask, src_txt_mask], dim=1).bool()
        states, references, memory = self.transformer(
            torch.cat([fused, text], dim=1),
            ~mask,
            self.query_embed.weight,
            self.positions(fused, src_vid_mask, text),
            self.saliency_proj1,
            video_length=clips,
        )
        # Words, that upstream looks for behind the clips, are not in the memory: there are none to align.
        outputs = self.predictions(states, memory, memory[:, clips:], inverse_sigmoid(references))
        return outputs | {
            "saliency_scores": self.refined_saliency(outputs, memory, video),
            "video_mask": src_vid_mask,
            "src_txt_ed": text,
            "src_vid_ed": video,
            "src_vid_cls_ed": video.mean(1),
            "src_txt_cls_ed": text.mean(1),
        }

    def refined_saliency(self, outputs: Outputs, memory: Tensor, video: Tensor) -> Tensor:
        """Score clips by their likeness to the best retrieved moment: memory and video (B, T, D) -> (B, T)."""
        moment = best_moment(outputs["pred_logits"], outputs["pred_spans"], video.shape[1], self.clip_len)
        whole = self.gru_extractor(slice_clips(video, *moment))
        likeness = video @ whole.unsqueeze(-1).to(video.dtype)
        return saliency_scores(self.saliency_proj1, memory * likeness + memory)


class GRUFeatureExtractor(nn.Module):
    """GRU whose last state stands for a sequence."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Read a sequence: (B, T, D) -> (B, D); padding is read like clips."""
        # On CPU, autocast does not cast a recurrence as a whole: it stays in its weights' precision.
        with torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext():
            return self.gru(x.to(next(self.gru.parameters()).dtype))[1][-1]


def build_tr_detr(config: DETRConfig, use_matcher: bool = True) -> tuple[TRDETR, SetCriterion]:
    """Build model and criterion as upstream's ``build_model`` does, on the CPU; with two losses more.

    Upstream's training loop adds VTC and CTC to the criterion's losses. Here they are the criterion's ``loss_vtc`` and
    ``loss_ctc``, so that the loop is the other models': leave upstream's two lines out. CTC needs the query's mask,
    which upstream's loop takes from the model's inputs and the criterion from the targets.
    ``use_matcher=False`` trains highlights (and VTC and CTC) alone, as upstream does for TVSum.

    >>> targets["src_txt_mask"] = model_inputs["src_txt_mask"]
    >>> losses = criterion(model(**model_inputs), targets)
    """
    criterion = SetCriterion(config, label_loss="focal", ranks=True, text_alignment=True, use_matcher=use_matcher)
    return TRDETR(config), criterion


__all__ = ["TRDETR", "TRDETRConfig", "build_tr_detr"]
