"""Descendants of the family, as in lighthouse: what of each the seam has to mind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin import Grounding, Pair, Seam
from hero_plugin.adapters.detr.adapter import DETRAdapter, saliency
from hero_plugin.adapters.detr.stand_ins import CallOnce, FirstClipSlot, LevelByLevel, has_module, return_none
from hero_plugin.aggregation import Kind
from hero_plugin.versions import is_compiling


class EaTRAdapter(DETRAdapter):
    """EaTR (ICCV 2023), which guesses events from the clips before it projects them: the same at every level."""

    class_names = ("EaTR",)
    marks = ("input_vid_proj.", "event_span_embed.", "saliency_proj.")
    requires = (*DETRAdapter.requires, "generate_pseudo_event")
    skips_decoder = True

    @property
    def kinds(self) -> Mapping[str, Kind]:  # type: ignore[override]
        """Guessed events stay as the base found them, a list with a tensor for each sample."""
        spans: Kind = "probability"
        return {**super().kinds, "pred_spans": spans, "pred_event_spans": spans, "pseudo_event_spans": "whole"}

    def embed(self, *args: Any, **kwargs: Any) -> Pair:
        """EaTR's forward; the events in the clips as they come travel with the pair."""
        given = self.signature.bind(*args, **kwargs).arguments
        clips, audio = given["src_vid"], given.get("src_aud")
        clips = clips if audio is None else torch.cat([clips, audio], dim=2)
        events = self.base.generate_pseudo_event(clips, given["src_vid_mask"])
        pair = super().embed(*args, **kwargs)
        return replace(pair, extra={**pair.extra, "events": events})

    def ground(self, pair: Pair) -> Grounding:
        """EaTR's own forward, with the events it would have guessed."""
        grounding, events = super().ground(pair), pair.extra["events"]
        grounding.outputs["pseudo_event_spans"] = events[: len(events) // pair.levels]
        return grounding

    def run(self, seam: Seam, pair: Pair, **changes: Any) -> Any:
        """As every base's, without the events: they are no argument."""
        extra = {name: value for name, value in pair.extra.items() if name != "events"}
        return super().run(seam, replace(pair, extra=extra), **changes)

    def make_seam(self, **replacements: Any) -> Seam:
        """Behind the projections no events are guessed."""
        return super().make_seam(generate_pseudo_event=return_none, **replacements)

    def saliency_stubs(self) -> dict[str, Any]:
        """The decoder, and the slots it starts from."""
        path = f"{self.transformer}.decoder.slot_atten"
        return {**super().saliency_stubs(), **({path: FirstClipSlot()} if has_module(self.base, path) else {})}


class CGDETRAdapter(DETRAdapter):
    """CG-DETR (2023), which also takes the videos' names, to know real negatives, and while training the targets."""

    class_names = ("CGDETR",)
    marks = ("input_vid_proj.", "transformer.t2v_encoder.", "global_rep_token", "saliency_proj2.", "dummy_rep_token")
    skips_decoder = True

    @property
    def kinds(self) -> Mapping[str, Kind]:  # type: ignore[override]
        """Attention is in [0, 1]; the prompt tokens are a parameter."""
        attention = ("t2vattnvalues", "t2vattnvalues_neg", "cate_attn_weights")
        return {
            **super().kinds,
            **dict.fromkeys(attention, "probability"),
            **dict.fromkeys(("txt_mask", "src_txt_mask_neg"), "shared"),
            "global_rep_tokens": "whole",
        }

    def embed(self, *args: Any, **kwargs: Any) -> Pair:
        """CG-DETR's forward, with one name a sample in ``vid`` and ``qid``."""
        pair = super().embed(*args, **kwargs)
        names = {name: list(pair.extra[name]) for name in ("vid", "qid") if pair.extra.get(name) is not None}
        return replace(pair, extra={**pair.extra, **names})

    def relate(self, pair: Pair) -> Tensor:
        """Without decoder, moment tokens and negative pairs: relevance logits (B, T)."""
        return saliency(self.run(self.saliency_seam, pair, vid=None, targets=None))


class FirstPassAdapter(DETRAdapter):
    """A base whose forward runs its transformer again, on negative pairs: ``relate`` runs it once."""

    def relate(self, pair: Pair) -> Tensor:
        """The first pass's saliency, without the decoder where it may be skipped: relevance logits (B, T)."""
        if is_compiling():
            return super().relate(pair)
        light = self.make_seam(**self.saliency_stubs()).view.get_submodule(self.transformer)
        return saliency(self.run(self.make_seam(**{self.transformer: CallOnce(light)}), pair))


class UVCOMAdapter(FirstPassAdapter):
    """UVCOM (CVPR 2024), whose ``CIM`` compares the samples of a batch: ``ground`` gives it one level at a time.

    So its similarities, and the negatives it chooses by them in later epochs, are those of the base.
    """

    class_names = ("UVCOM",)
    marks = ("input_vid_proj.", "CIM.")
    requires = ("input_vid_proj", "input_txt_proj", "CIM.d_model")
    transformer = "CIM"
    skips_decoder = True

    def project_with_audio(self, video: Tensor, audio: Tensor) -> Tensor:
        """Audio has a projection of its own; the two are added."""
        return self.base.input_vid_proj(video) + self.base.input_audio_proj(audio)

    def ground(self, pair: Pair) -> Grounding:
        """UVCOM's own forward; ``sim`` is every level's own."""
        if pair.levels == 1:
            return super().ground(pair)
        outputs = self.run(self.make_seam(CIM=LevelByLevel(self.base.CIM, pair.levels)), pair)
        return Grounding(outputs, saliency(outputs))


class TaskWeaveAdapter(FirstPassAdapter):
    """TaskWeave (CVPR 2024), which returns its outputs and the variances of its tasks, two parameters.

    Its saliency scores read the retrieved moments where ``mr2hd``; else ``relate`` skips the decoder.
    """

    class_names = ("TaskWeave",)
    marks = ("input_vid_proj.", "mr_log_var", "hd_log_var")
    requires = (*DETRAdapter.requires, "mr2hd")

    @property
    def kinds(self) -> Mapping[str, Kind]:  # type: ignore[override]
        """The second output, the list of variances, belongs to the base and not to a level."""
        return {**super().kinds, "1": "whole"}

    @property
    def skips_decoder(self) -> bool:  # type: ignore[override]
        """Whether highlights come before moments."""
        return not self.base.mr2hd


class FlashVTGAdapter(DETRAdapter):
    """FlashVTG (WACV 2025): refused, with the reason."""

    class_names = ("FlashVTG",)

    @classmethod
    def check(cls, base: nn.Module) -> None:
        """Raise ``TypeError``: its forward sorts what levels would have to be combined by."""
        raise TypeError(
            f"{type(base).__name__} cannot be wrapped behind its projections: its forward sorts each query's moments "
            "by score, so that the levels' moments no longer correspond, and evaluates one sample at a time. It needs "
            "an adapter of its own that enters before the sorting: see docs/detr.md and docs/adapters.md"
        )
