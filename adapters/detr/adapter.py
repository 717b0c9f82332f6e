"""Adapter of the DETR family: the reference implementations, upstream's own classes, and their copies elsewhere."""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import Adapter, Grounding, Pair, PassThrough, Seam
from hero_plugin.aggregation import Kind
from hero_plugin.levels import map_tensors, tensors_of
from hero_plugin.tensors import KeepStatistics, is_compiling, kept_modes

INPUTS = ("src_txt", "src_txt_mask", "src_vid", "src_vid_mask")
"""What a model's forward reads of a batch, by upstream's names."""
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("pred_logits", "saliency_scores", "saliency_scores_neg"), "logits"),
    **dict.fromkeys(("video_mask", "src_vid_mask"), "shared"),
    **dict.fromkeys(("proj_queries", "proj_txt_mem", "proj_vid_mem"), "direction"),
}
"""Of the outputs that bases of the family share, but for the spans."""


class DETRAdapter(Adapter):
    """Adapter of a base that projects its inputs in ``input_vid_proj`` and ``input_txt_proj``: the seam.

    Everything after the projections is the base's own forward, in one call for all levels. What else that forward
    takes (``vid``, ``targets``, an epoch) is passed on, once per level; lists as ``per_sample`` or ``constant`` names
    them. Relevance is ``saliency_scores``.

    Served by itself, as ``wrap_model(base, adapter=DETRAdapter)``, for any base of this shape; a subclass says what
    ``relate`` may leave out of the forward, or how a fork calls its arguments.
    """

    inputs: ClassVar[tuple[str, str, str, str]] = INPUTS
    """The forward's arguments of words, their mask, clips, their mask: (B, L, Dt), (B, L), (B, T, Dv), (B, T)."""
    requires: ClassVar[tuple[str, ...]] = ("input_vid_proj", "input_txt_proj", "transformer.d_model")
    width_parameter = "class_embed.weight"
    transformer: ClassVar[str] = "transformer"
    """Where the base keeps encoder and decoder."""
    relevance_ranks = True
    more_kinds: ClassVar[Mapping[str, Kind]] = {}
    """Kinds of outputs that this base has besides ``KINDS`` and its spans, or has otherwise."""
    optional_outputs = tuple(KINDS)
    per_sample: ClassVar[tuple[str, ...]] = ("vid", "qid", "targets", "events")
    """What else the forward takes, by its names, whose lists hold one item per sample."""
    constant: ClassVar[tuple[str, ...]] = ()
    """What else the forward takes, by its names, that is the same for every sample."""
    skips_decoder: ClassVar[bool] = False
    """Whether the saliency scores never read the decoder."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.signature = forward_signature(base, self.inputs)
        self.seam = self.make_seam()
        self.saliency_seam = self.make_seam(**self.saliency_stubs())
        self.reads_all: bool | None = False if type(base).__module__.startswith("hero_plugin.adapters.") else None
        """Whether the saliency scores read what ``light_relevance`` leaves out; None until a pair has been asked."""
        self.unseen: tuple[str, ...] | None = () if self.reads_all is False else None
        """Outputs that the base makes of the clips without the query; None until a pair has been asked."""

    @classmethod
    def check(cls, base: nn.Module) -> None:
        """Raise ``TypeError`` naming the first attribute, or argument of the forward, that is missing."""
        super().check(base)
        for name in cls.inputs:
            if name not in forward_signature(base, cls.inputs).parameters:
                raise TypeError(
                    f"{type(base).__name__} was recognised by {cls.__name__}, but its forward takes no argument "
                    f"{name!r}. For a fork that renamed it, subclass {cls.__name__} with inputs = (words, their mask, "
                    "clips, their mask), by the fork's names: docs/guide/own_base.md"
                )

    @property
    def dim(self) -> int:
        """The transformer's width."""
        return getattr(self.base, self.transformer).d_model

    @property
    def kinds(self) -> Mapping[str, Kind]:  # type: ignore[override]
        """Spans are (center, width) in [0, 1], or logits over the clips where the base classifies them."""
        classified = getattr(self.base, "span_loss_type", "l1") == "ce"
        return {**KINDS, "pred_spans": "logits" if classified else "probability", **self.more_kinds}

    def embed(self, *args: Any, **kwargs: Any) -> Pair:
        """Project the base's inputs: src_txt (B, L, Dt), src_vid (B, T, Dv), their masks, and whatever else it takes.

        Audio, ``src_aud`` (B, T, Da), becomes part of the clips here; the base's forward does not get it again.
        """
        given: dict[str, Any] = dict(self.signature.bind(*args, **kwargs).arguments)
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(given.pop(parameter.name, {}))
        query, query_mask, video, video_mask = (given.pop(name) for name in self.inputs)
        if given.get("src_aud") is None:
            video = self.base.input_vid_proj(video)
        else:
            video, given["src_aud"] = self.project_with_audio(video, given["src_aud"]), None
        words = self.base.input_txt_proj(query)
        # TR-DETR, for one, averages the words with their padding.
        return Pair(video, words, video_mask, query_mask, given, self.per_sample, self.constant, reads_padding=True)

    def project_with_audio(self, video: Tensor, audio: Tensor) -> Tensor:
        """Project clips with audio as the base would: (B, T, Dv), (B, T, Da) -> (B, T, D)."""
        return self.base.input_vid_proj(torch.cat([video, audio], dim=2))

    def ground(self, pair: Pair) -> Grounding:
        """Run the base's own forward from the projected pair on; outputs as the base returns them."""
        outputs = self.run(self.seam, pair)
        return Grounding(outputs, saliency(outputs))

    def relate(self, pair: Pair) -> Tensor:
        """Return relevance logits (B, T), without what the saliency scores never read.

        A fork's may read it, whatever its class is called. So the first pair is run in both ways, and where they
        differ, all are run in full; so is an unknown class's in a compiled model, which cannot ask.
        """
        if self.reads_all is None and not is_compiling():
            self.reads_all = not self.is_light_relevance_right(pair)
        return self.light_relevance(pair) if self.reads_all is False else self.whole_relevance(pair)

    def light_relevance(self, pair: Pair) -> Tensor:
        """Run the base's own forward without what the saliency scores never read: relevance logits (B, T)."""
        return saliency(self.run(self.saliency_seam, pair))

    def whole_relevance(self, pair: Pair) -> Any:
        """Run all of the base's own forward: relevance logits (B, T)."""
        return self.ground(pair).relevance

    def complete(self, outputs: Any, pair: Pair) -> Any:
        """Put in what a base of an unknown class makes of the clips alone, before HERO: see ``TRDETRAdapter``.

        While training, and for one more pass of the base where there is any: a loss that tells a video's own query
        from others by it has nothing left to do once the clips were filtered by their own.
        """
        if not torch.is_grad_enabled() or not isinstance(outputs, dict):
            return outputs
        if self.unseen is None and is_compiling():
            from torch._dynamo.comptime import comptime  # where the compiler traces, it takes no warning

            comptime(warn_of_unseen)
        elif self.unseen is None:
            self.unseen = self.made_of_clips_alone(pair)
        if not self.unseen:
            return outputs
        with KeepStatistics(self.base):
            before = self.run(self.seam, pair)
        return outputs | {name: before[name] for name in self.unseen}

    def made_of_clips_alone(self, pair: Pair) -> tuple[str, ...]:
        """Return the names of the outputs whose graph holds the clips and not the words, of any sample."""
        clips, words = (part.detach().clone().requires_grad_() for part in (pair.video, pair.query))
        devices = [clips.device] if clips.is_cuda else []
        with torch.random.fork_rng(devices), KeepStatistics(self.base):
            outputs = self.run(self.seam, replace(pair, video=clips, query=words))
        return tuple(name for name, each in outputs.items() if is_made_of(each, clips) and not is_made_of(each, words))

    @torch.no_grad()
    def is_light_relevance_right(self, pair: Pair) -> bool:
        """Return whether it is what ``ground`` returns, in eval mode, where nothing is random."""
        with kept_modes(self.base), KeepStatistics(self.base):
            for module in self.base.modules():
                module.training = False
            return torch.allclose(self.light_relevance(pair), self.whole_relevance(pair), rtol=1e-3, atol=1e-5)

    def run(self, seam: Seam, pair: Pair, **changes: Any) -> Any:
        """Return the seam's outputs for a pair; ``changes`` go over the other arguments that the pair carries."""
        own = dict(zip(self.inputs, (pair.query, pair.query_mask, pair.video, pair.video_mask), strict=True))
        return seam(**own, **{**pair.extra, **changes})

    def make_seam(self, **replacements: Any) -> Seam:
        """Make a seam after the base's projections, with further parts replaced."""
        return Seam(self.base, input_vid_proj=PassThrough(), input_txt_proj=PassThrough(), **replacements)

    def saliency_stubs(self) -> dict[str, Any]:
        """Return the stubs of parts that the saliency scores never read, by path; none by default.

        The decoder around its layers runs on, so that its outputs keep their shape, whatever that is.
        """
        path = f"{self.transformer}.decoder.layers"
        if not self.skips_decoder or not has_module(self.base, path):
            return {}
        return {path: nn.ModuleList(SkipLayer() for _ in self.base.get_submodule(path).children())}


class FirstPassAdapter(DETRAdapter):
    """Adapter of a base whose forward runs its transformer again, on negative pairs: ``relate`` runs it once.

    What a later pass would encode has the shape of the first, and nobody will read it.
    """

    def light_relevance(self, pair: Pair) -> Tensor:
        """Return the first pass's saliency, without the decoder where it may be skipped: relevance logits (B, T)."""
        if is_compiling():
            return super().light_relevance(pair)
        light = self.make_seam(**self.saliency_stubs()).view.get_submodule(self.transformer)
        return saliency(self.run(self.make_seam(**{self.transformer: CallOnce(light)}), pair))


class CallOnce(nn.Module):
    """A module that answers once, and later calls in the same shapes with what is not a number: see ``SkipLayer``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.called, self.answer = False, None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module, or return nan in the shape of its first answer."""
        if not self.called:
            self.called, self.answer = True, self.module(*args, **kwargs)
            return self.answer
        return map_tensors(lambda each, _: each * torch.nan if each.is_floating_point() else each, self.answer)


def forward_signature(base: nn.Module, inputs: tuple[str, ...] = INPUTS) -> inspect.Signature:
    """Return the signature of the base's forward, without ``self``.

    An ancestor's that has the ``inputs``, where a subclass only passes its arguments on.
    """
    found = [inspect.signature(vars(a)["forward"]) for a in type(base).__mro__ if "forward" in vars(a)]
    named = [signature for signature in found if set(inputs) <= set(signature.parameters)]
    signature = (named or found)[0]
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def saliency(outputs: Any) -> Any:
    """Return the clips' scores (B, T) from a base's outputs; from the first of them where there are several."""
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs
    return outputs.get("saliency_scores")


def warn_of_unseen(*context: Any) -> None:
    """Warn that a compiled model cannot ask which outputs its base makes of the clips without the query."""
    warnings.warn(
        "this model is compiled before it has run, so HERO cannot see whether its base makes outputs of the clips "
        "without the query (for a contrastive loss, say): they would be those of filtered clips. Run one forward in "
        "training before torch.compile",
        stacklevel=2,
    )


def is_made_of(outputs: Any, leaf: Tensor) -> bool:
    """Return whether a tensor in ``outputs`` was computed from ``leaf``, by its graph: weights of zero hide nothing."""
    tensors = [tensor for _, tensor in tensors_of(outputs)]
    if any(tensor is leaf for tensor in tensors):
        return True
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) is leaf:
            return True
        seen.add(node)
        nodes.extend(before for before, _ in node.next_functions)
    return False


class SkipLayer(nn.Module):
    """Stub of a decoder layer, whose work saliency does not need.

    Its answer is not a number, so that a forward that reads it all the same cannot pass for one that does not.
    """

    def forward(self, value: Any, *rest: Any, **options: Any) -> Any:
        """Return the shape of ``value``, filled with nan."""
        return torch.full_like(value, torch.nan)


def has_module(base: nn.Module, path: str) -> bool:
    """Return whether there is a module at this dotted path."""
    try:
        base.get_submodule(path)
    except AttributeError:
        return False
    return True
