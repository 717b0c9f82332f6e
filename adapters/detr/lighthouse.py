"""Adapters of the family's descendants, as lighthouse has them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import Grounding, Pair, PassThrough, Seam
from hero_plugin.adapters.detr.adapter import DETRAdapter, FirstPassAdapter, has_module, saliency
from hero_plugin.aggregation import Kind
from hero_plugin.tensors import KeepStatistics


class EaTRAdapter(DETRAdapter):
    """Adapter of EaTR (ICCV 2023), which guesses events from the clips as they come: the same at every level."""

    class_names = ("EaTR",)
    weight_prefixes = ("input_vid_proj.", "event_span_embed.", "saliency_proj.")
    requires = (*DETRAdapter.requires, "generate_pseudo_event")
    skips_decoder = True
    more_kinds: ClassVar[Mapping[str, Kind]] = {
        "pred_spans": "probability",
        "pred_event_spans": "probability",
        "pseudo_event_spans": "whole",  # as the base found them, a list with a tensor for each sample
    }

    def embed(self, *args: Any, **kwargs: Any) -> Pair:
        """Project EaTR's inputs; the events in the clips as they come travel with the pair."""
        given = self.signature.bind(*args, **kwargs).arguments
        clips, audio = given["src_vid"], given.get("src_aud")
        clips = clips if audio is None else torch.cat([clips, audio], dim=2)
        events = self.base.generate_pseudo_event(clips, given["src_vid_mask"])
        pair = super().embed(*args, **kwargs)
        return replace(pair, extra={**pair.extra, "events": events})

    def ground(self, pair: Pair) -> Grounding:
        """Run EaTR's own forward, with the events it would have guessed."""
        grounding, events = super().ground(pair), pair.extra["events"]
        grounding.outputs["pseudo_event_spans"] = events[: len(events) // pair.levels]
        return grounding

    def run(self, seam: Seam, pair: Pair, **changes: Any) -> Any:
        """Return the seam's outputs; the events are no argument of the forward."""
        extra = {name: value for name, value in pair.extra.items() if name != "events"}
        return super().run(seam, replace(pair, extra=extra), **changes)

    def complete(self, outputs: Any, pair: Pair) -> Any:
        """Return the outputs: events of the filtered clips are compared with such as say nothing of a query."""
        return outputs

    def make_seam(self, **replacements: Any) -> Seam:
        """Make a seam in which no events are guessed: behind the projections it is too late."""
        return super().make_seam(generate_pseudo_event=return_none, **replacements)

    def saliency_stubs(self) -> dict[str, Any]:
        """Return stubs of the decoder, and of the slots it starts from."""
        path = f"{self.transformer}.decoder.slot_atten"
        return {**super().saliency_stubs(), **({path: FirstClipSlot()} if has_module(self.base, path) else {})}


MOMENT_TOKENS = ("memory_moment", "nmmemory_moment", "src_vid", "moment2txt_similarity", "nmoment2txt_similarity")
SENTENCE_TOKENS = ("sentence_txt", "sentence_dummy", "dummy_tokens")


class CGDETRAdapter(DETRAdapter):
    """Adapter of CG-DETR (2023), which also takes names, to know real negatives, and while training the targets."""

    class_names = ("CGDETR",)
    weight_prefixes = (
        "input_vid_proj.",
        "transformer.t2v_encoder.",
        "global_rep_token",
        "saliency_proj2.",
        "dummy_rep_token",
    )
    part_of_batch = ("saliency_scores_neg", "t2vattnvalues_neg", "src_txt_mask_neg")
    optional_outputs = (*DETRAdapter.optional_outputs, *part_of_batch, *MOMENT_TOKENS, *SENTENCE_TOKENS)
    requires = (*DETRAdapter.requires, "transformer.t2v_encoder", "transformer.encoder")
    skips_decoder = True
    more_kinds: ClassVar[Mapping[str, Kind]] = {
        **dict.fromkeys(("t2vattnvalues", "t2vattnvalues_neg", "cate_attn_weights"), "probability"),
        **dict.fromkeys((*MOMENT_TOKENS, *SENTENCE_TOKENS), "logits"),
        **dict.fromkeys(("txt_mask", "src_txt_mask_neg"), "shared"),
        "global_rep_tokens": "whole",  # the prompt tokens, a parameter
    }

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        skipped = {"transformer.t2v_encoder": NoAttention(), "transformer.encoder": PassThrough()}
        self.token_seam = self.make_seam(**self.saliency_stubs(), **skipped)

    def embed(self, *args: Any, **kwargs: Any) -> Pair:
        """Project CG-DETR's inputs; ``vid`` and ``qid`` are lists with one name per sample."""
        pair = super().embed(*args, **kwargs)
        names = {name: list(pair.extra[name]) for name in ("vid", "qid") if pair.extra.get(name) is not None}
        return replace(pair, extra={**pair.extra, **names})

    def light_relevance(self, pair: Pair) -> Tensor:
        """Run CG-DETR without decoder, moment tokens and negative pairs: relevance logits (B, T)."""
        return saliency(self.run(self.saliency_seam, pair, vid=None, targets=None))

    def complete(self, outputs: Any, pair: Pair) -> Any:
        """Put in the moment tokens, which see no query, and the clips and words compared with them, before HERO.

        The loss that aligns them tells a moment's query from the batch's others: see ``TRDETRAdapter``.
        """
        if outputs.get("memory_moment") is None:  # without targets
            return outputs
        with KeepStatistics(self.base):
            before = self.run(self.token_seam, pair, vid=None)
        return outputs | {name: before[name] for name in MOMENT_TOKENS}


class UVCOMAdapter(FirstPassAdapter):
    """Adapter of UVCOM (CVPR 2024), whose ``CIM`` compares a batch's samples: ``ground`` gives it a level at a time.

    So its similarities, and the negatives it chooses by them in later epochs, are those of the base.
    """

    class_names = ("UVCOM",)
    weight_prefixes = ("input_vid_proj.", "CIM.")
    requires = ("input_vid_proj", "input_txt_proj", "CIM.d_model")
    transformer = "CIM"
    skips_decoder = True
    more_kinds: ClassVar[Mapping[str, Kind]] = {"CTA_Sim": "logits", "VLA_Sim": "logits"}  # its loss takes a softmax
    optional_outputs = (*DETRAdapter.optional_outputs, *more_kinds)

    def project_with_audio(self, video: Tensor, audio: Tensor) -> Tensor:
        """Project clips and audio, which has its own projection, and add the two."""
        return self.base.input_vid_proj(video) + self.base.input_audio_proj(audio)

    def ground(self, pair: Pair) -> Grounding:
        """Run UVCOM's own forward; ``sim`` is every level's own."""
        if pair.levels == 1:
            return super().ground(pair)
        outputs = self.run(self.make_seam(CIM=LevelByLevel(self.base.CIM, pair.levels)), pair)
        return Grounding(outputs, saliency(outputs))


class TaskWeaveAdapter(FirstPassAdapter):
    """Adapter of TaskWeave (CVPR 2024), which returns its outputs and the variances of its tasks, two parameters.

    Its saliency scores read the retrieved moments where ``mr2hd``; else ``relate`` skips the decoder. The authors' own
    code has no such attribute, and one of the two ways commented out: it may be either.
    """

    class_names = ("TaskWeave",)
    weight_prefixes = ("input_vid_proj.", "mr_log_var", "hd_log_var")
    more_kinds: ClassVar[Mapping[str, Kind]] = {"1": "whole"}  # the variances are of the base, not of a level

    @property
    def skips_decoder(self) -> bool:  # type: ignore[override]
        """Whether highlights come before moments."""
        return not getattr(self.base, "mr2hd", True)


class LevelByLevel(nn.Module):
    """UVCOM's CIM, given the N levels of a folded batch one after the other, because it compares a batch's samples."""

    def __init__(self, module: nn.Module, levels: int) -> None:
        super().__init__()
        self.module, self.levels = module, levels

    def forward(self, src: Tensor, mask: Tensor, query_embed: Tensor, pos_embed: Tensor, **options: Any) -> Any:
        """Run the CIM once per level and join its answers along the batch.

        src and pos_embed (N*B, L, D), mask (N*B, L); query_embed is shared by all levels, ``options`` are passed on.
        """
        parts = zip(*(part.chunk(self.levels) for part in (src, mask, pos_embed)), strict=True)
        answers = [self.module(one, real, query_embed, place, **options) for one, real, place in parts]
        states, references, memory, whole, similarities = zip(*answers, strict=True)
        joined = {}
        for name in similarities[0]:
            of_levels = [similarity[name] for similarity in similarities]
            if name == "negative_idx":  # indices of samples: those of level i start at i * B in the folded batch
                of_levels = [chosen + level * len(chosen) for level, chosen in enumerate(of_levels)]
            joined[name] = join_levels(of_levels)
        return torch.cat(states, 1), torch.cat(references, 1), torch.cat(memory), torch.cat(whole), joined


def join_levels(of_levels: list[Any]) -> Any:
    """Join N tensors (B, ...), or N tuples of such, to (N*B, ...)."""
    if isinstance(of_levels[0], tuple):
        return tuple(torch.cat(tensors) for tensors in zip(*of_levels, strict=True))
    return torch.cat(of_levels)


class NoAttention(PassThrough):
    """Stub of CG-DETR's text-to-video encoder: what it reads, and an even attention of the shape that it returns."""

    def forward(self, value: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Return ``value`` (T + L, B, D), and ones (B, T, L)."""
        clips = options["video_length"]
        return value, value.new_ones(value.shape[1], clips, max(len(value) - clips, 1))


class FirstClipSlot(nn.Module):
    """Slot attention that takes the first clip for its only slot: the right shape for next to no work."""

    def forward(self, clips: Tensor, *rest: Any, **options: Any) -> Tensor:
        """Return the first clip: (B, T, D) -> (B, 1, D)."""
        return clips[:, :1]


def return_none(*args: Any, **kwargs: Any) -> None:
    """Return None, in place of a method whose result is known already."""
