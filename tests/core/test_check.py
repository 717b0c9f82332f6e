"""``check_adapter``: a sound adapter passes, each fault is caught by its own check, and the model stays as it is."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from hero_plugin import Adapter, Grounding, Pair, TwoStage, check_adapter, wrap_model
from hero_plugin.losses import without_hero
from tests.core.bases import DIM, QUERY_DIM, VIDEO_DIM, DictPredictor, ToyFuser, dict_base, inputs, shake, tuple_base

LOGITS = dict.fromkeys(("pred_logits", "saliency_scores"), "logits")
KINDS = {**LOGITS, "pred_spans": "probability", "video_mask": "shared"}
PADDING = ["words padded right", "words padded left", "clips padded right", "clips padded left"]
FRESH = ["fresh is the base, eval", "fresh is the base, train"]


class Gained(TwoStage):
    """A base whose forward takes one more argument, a loudness of each sample."""

    def forward(self, video, query, video_mask, query_mask, gain):
        pair = self.embed(video, query, video_mask, query_mask)
        return self.ground(replace(pair, video=pair.video * gain.view(-1, 1, 1))).outputs


def base(fuser=ToyFuser):
    torch.manual_seed(0)
    predictor = DictPredictor(DIM)
    score = nn.Sequential(predictor.saliency, nn.Flatten(1))
    parts = {"project_video": nn.Linear(VIDEO_DIM, DIM), "project_query": nn.Linear(QUERY_DIM, DIM)}
    return Gained(fuser(DIM, 0.1), predictor, DIM, **parts, relevance=score)


def batch():
    torch.manual_seed(1)
    return *inputs(), torch.tensor([1.0, 2.0, 3.0])


class Sound(Adapter):
    kinds = KINDS
    dim = DIM

    def embed(self, video, query, video_mask, query_mask, gain):
        return replace(self.base.embed(video, query, video_mask, query_mask), extra={"gain": gain})

    def louder(self, pair):
        return replace(pair, video=pair.video * pair.extra["gain"].view(-1, 1, 1))

    def ground(self, pair):
        return self.base.ground(self.louder(pair))

    def relate(self, pair):
        return self.base.relate(self.louder(pair))


def failing(report):
    return [finding.check for finding in report.failures]


def row(report, name):
    return next(finding for finding in report.findings if finding.check == name)


def test_a_sound_adapter_passes_every_check():
    report = check_adapter(base(), *batch(), adapter=Sound)
    assert report.ok and {finding.result for finding in report.findings} == {"passed"}, str(report)
    assert row(report, "off is the base").figure == 0 == row(report, "one level is the base").figure
    report.raise_for_failures()


class RepeatsSampleBySample(Sound):
    """Levels stand one after the other, but its extra argument is repeated sample by sample."""

    def embed(self, *args):
        return replace(super().embed(*args), constant=("gain",))

    def louder(self, pair):
        gain = pair.extra["gain"].repeat_interleave(pair.levels)
        return replace(pair, video=pair.video * gain.view(-1, 1, 1))


class LeavesAKindOut(Sound):
    kinds: ClassVar = {name: kind for name, kind in KINDS.items() if name != "saliency_scores"}


class CallsLogitsAProbability(Sound):
    kinds: ClassVar = {**KINDS, "saliency_scores": "probability"}


class TakesAnAnswerFromLevel0(Sound):
    kinds: ClassVar = {**KINDS, "pred_logits": "shared"}


class NamesNoOutput(Sound):
    kinds: ClassVar = {**KINDS, "pred_span": "probability"}


class CallsFeaturesADirection(Sound):
    kinds: ClassVar = {**KINDS, "saliency_scores": "direction"}


class RelatesOtherwise(Sound):
    def relate(self, pair):
        return super().relate(replace(pair, query=pair.query * 0.9))


class RelatesWithoutWords(Sound):
    def relate(self, pair):
        return super().relate(replace(pair, query=pair.query.detach()))


class RelatesByProbabilities(Sound):
    def ground(self, pair):
        grounding = super().ground(pair)
        return replace(grounding, relevance=grounding.relevance.sigmoid())

    def relate(self, pair):
        return super().relate(pair).sigmoid()


class DetachesRelevance(Sound):
    def ground(self, pair):
        grounding = super().ground(pair)
        return replace(grounding, relevance=grounding.relevance.detach())


class DetachesClips(Sound):
    def embed(self, *args):
        pair = super().embed(*args)
        return replace(pair, video=pair.video.detach())


class SqueezesABatchOfOne(Sound):
    def ground(self, pair):
        grounding = super().ground(pair)
        return replace(
            grounding, outputs={**grounding.outputs, "pred_spans": grounding.outputs["pred_spans"].squeeze()}
        )


class KeepsTheFirstBatch(Sound):
    seen = None

    def embed(self, *args):
        self.seen = self.seen if self.seen is not None else torch.zeros(len(args[0]), 1, 1)
        pair = super().embed(*args)
        return replace(pair, video=pair.video + self.seen)


class WritesIntoThePair(Sound):
    def ground(self, pair):
        pair.query.mul_(pair.query_mask.unsqueeze(-1))
        return super().ground(pair)


class LeavesTheBaseInEval(Sound):
    def relate(self, pair):
        self.base.eval()
        return super().relate(pair)


class WritesIntoAWeight(Sound):
    def ground(self, pair):
        grounding = super().ground(pair)
        with torch.no_grad():
            self.base.relevance[0].bias.mul_(0.5)
        return grounding


class LeavesOutTheGain(Sound):
    def louder(self, pair):
        return pair


class TrainsOtherwise(Sound):
    def ground(self, pair):
        grounding = super().ground(pair)
        logits = grounding.outputs["pred_logits"] * (0.5 if self.base.training else 1.0)
        return replace(grounding, outputs={**grounding.outputs, "pred_logits": logits})


class CountsClipsFromTheLeft(Sound):
    def louder(self, pair):
        place = torch.arange(pair.video_mask.shape[1])
        return super().louder(replace(pair, video_mask=(place < pair.video_mask.sum(1, keepdim=True)).float()))


class TransposesAMask(Sound):
    def embed(self, *args):
        pair = super().embed(*args)
        return replace(pair, query_mask=pair.query_mask.T)


class ScoresTheWholeVideo(Sound):
    def ground(self, pair):
        grounding = super().ground(pair)
        return replace(grounding, relevance=grounding.relevance.mean(1))


class Raises(Sound):
    def relate(self, pair):
        return self.base.no_such_part(pair)


SHAPES = [*FRESH, *PADDING, "batch of one", "odd last batch"]
FAULTS = [
    (RepeatsSampleBySample, "levels one by one", "Pair.extra"),
    (LeavesAKindOut, "every output has a kind", "'saliency_scores' has none, and looks like 'logits'"),
    (CallsLogitsAProbability, "every output has a kind", "values outside [0, 1]"),
    (TakesAnAnswerFromLevel0, "every output has a kind", "'pred_logits' is taken from level 0"),
    (NamesNoOutput, "every output has a kind", "kinds has 'pred_span', which is no output"),
    (CallsFeaturesADirection, "every output has a kind", "not of unit length"),
    (RelatesOtherwise, "relate is ground's relevance", "the two differ"),
    (RelatesWithoutWords, "gradients arrive", "the relevance of relate has no gradient for the words"),
    (DetachesRelevance, "gradients arrive", "the relevance of ground has no gradient for the clips"),
    (DetachesClips, "gradients arrive", "base.project_video.bias"),
    (SqueezesABatchOfOne, "batch of one", "'pred_spans' is (3, 2) torch.float32 instead of (1, 3, 2)"),
    (KeepsTheFirstBatch, "odd last batch", "RuntimeError at test_check.py:"),
    (WritesIntoThePair, "the pair is left alone", "ground writes into query"),
    (LeavesTheBaseInEval, "the base is left alone", "the mode of the base"),
    (WritesIntoAWeight, "the base is left alone", "relevance.0.bias changes in eval mode"),
    (LeavesOutTheGain, "one level is the base", "'pred_logits' differs"),
    (TrainsOtherwise, "fresh is the base, train", "'pred_logits' differs"),
    (CountsClipsFromTheLeft, "clips padded left", "differs"),
    (TransposesAMask, "embed gives a pair", "query_mask must be (3, 5), got (5, 3)"),
    (ScoresTheWholeVideo, "relate is ground's relevance", "the relevance of ground must be (3, 7), got (3,)"),
    (RelatesByProbabilities, "relate is ground's relevance", "all relevance is in [0, 1]"),
    (Raises, "relate is ground's relevance", "no_such_part"),
]
ALONE = {
    LeavesAKindOut,
    RelatesOtherwise,
    RelatesWithoutWords,
    RelatesByProbabilities,
    DetachesRelevance,
    DetachesClips,
    SqueezesABatchOfOne,
    CountsClipsFromTheLeft,
}
"""Faults that no other check sees."""


@pytest.mark.parametrize(("adapter", "check", "said"), FAULTS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_fault_is_caught_by_its_own_check(adapter, check, said):
    report = check_adapter(base(), *batch(), adapter=adapter)
    assert check in failing(report), str(report)
    assert any(said in finding.note for finding in report.failures), str(report)
    assert adapter not in ALONE or failing(report) == [check], str(report)
    assert len(report.findings) == 17
    with pytest.raises(ValueError, match="17 checks failed"):
        report.raise_for_failures()


class WithLoss(Gained):
    """A base whose forward computes a loss beside its outputs."""

    def forward(self, *args):
        outputs = super().forward(*args)
        return {**outputs, "loss": outputs["pred_spans"].square().mean()}


class NamesTheLoss(Sound):
    kinds: ClassVar = {**KINDS, "loss": "logits"}

    def ground(self, pair):
        grounding = super().ground(pair)
        outputs = {**grounding.outputs, "loss": grounding.outputs["pred_spans"].square().mean()}
        return replace(grounding, outputs=outputs)


def test_a_loss_among_the_outputs_is_caught_also_where_it_has_a_kind():
    whole = base()
    whole.__class__ = WithLoss
    report = check_adapter(whole, *batch(), adapter=NamesTheLoss)
    assert any("'loss' is one number, of a loss, say" in finding.note for finding in report.failures), str(report)


def test_outputs_that_are_nan_throughout_are_refused():
    clips, *rest = batch()
    with pytest.raises(ValueError, match="NaN throughout"):
        check_adapter(base(), torch.full_like(clips, torch.nan), *rest, adapter=Sound)


class ReadsPadding(ToyFuser):
    def forward(self, video, query, video_mask, query_mask):
        return super().forward(video + query.mean(1, keepdim=True), query, video_mask, query_mask)


class SaysSo(Sound):
    def embed(self, *args):
        return replace(super().embed(*args), reads_padding=True)


def test_a_fuser_that_reads_padded_words_is_caught_until_its_adapter_says_so():
    report = check_adapter(base(ReadsPadding), *batch(), adapter=Sound)
    assert {"words padded right", "words padded left", *FRESH} <= set(failing(report))
    assert "reads_padding=True" in row(report, "words padded left").note
    assert str(report).endswith("Begin with 'words padded right': the others may fail for the same reason.")
    assert check_adapter(base(ReadsPadding), *batch(), adapter=SaysSo).ok


class Inverted(Sound):
    def embed(self, video, query, video_mask, query_mask, gain):
        return super().embed(video, query, 1 - video_mask, query_mask, gain)

    def ground(self, pair):
        return super().ground(replace(pair, video_mask=1 - pair.video_mask))


class Added(Sound):
    def embed(self, video, query, video_mask, query_mask, gain):
        return super().embed(video, query, video_mask, (1 - query_mask) * -1e4, gain)


def test_masks_of_another_kind_are_named():
    found = {adapter: check_adapter(base(), *batch(), adapter=adapter) for adapter in (Inverted, Added)}
    assert "no real clips in sample 0: a mask that is 1 at padding?" in row(found[Inverted], "embed gives a pair").note
    assert "must be 1 at real words and 0 at padding" in row(found[Added], "embed gives a pair").note


class Chooses(DictPredictor):
    """A predictor that makes a choice of its own logits, and a loss."""

    def forward(self, fused, video_mask):
        outputs = super().forward(fused, video_mask)
        return {
            **outputs,
            "best": outputs["pred_logits"].argmax(-1),
            "loss": outputs["pred_logits"].logsumexp(-1).mean(),
        }


@pytest.mark.parametrize("seed", range(4))
def test_what_a_base_makes_of_its_own_outputs_is_named(seed):
    torch.manual_seed(seed)
    parts = {"project_video": nn.Linear(VIDEO_DIM, DIM), "project_query": nn.Linear(QUERY_DIM, DIM)}
    model = TwoStage(ToyFuser(DIM, 0.1), Chooses(DIM), DIM, **parts, kinds=dict(KINDS))
    note = row(check_adapter(model, *inputs()), "every output has a kind").note
    assert "'best' is taken from level 0, but it depends on the query: compute it outside" in note
    assert "'loss' is one number, of a loss, say: compute it outside" in note


class Sealed(dict):
    """A dict from which nothing can be taken, as transformers' ``ModelOutput``."""

    def pop(self, *args):
        raise TypeError("nothing can be taken")

    __delitem__ = pop


class Seals(DictPredictor):
    def forward(self, fused, video_mask):
        return Sealed(super().forward(fused, video_mask))


def test_outputs_from_which_nothing_can_be_taken():
    torch.manual_seed(0)
    predictor = Seals(DIM)
    parts = {"project_video": nn.Linear(VIDEO_DIM, DIM), "project_query": nn.Linear(QUERY_DIM, DIM)}
    score = nn.Sequential(predictor.saliency, nn.Flatten(1))
    model = TwoStage(ToyFuser(DIM, 0.0), predictor, DIM, **parts, relevance=score, kinds=KINDS)
    check_adapter(model, *inputs()).raise_for_failures()
    outputs = wrap_model(model).train()(*inputs())
    assert type(without_hero(outputs)) is Sealed and "hero" in outputs and "hero" not in without_hero(outputs)


class Counting(ToyFuser):
    calls = 0

    def forward(self, *args):
        self.calls += 1
        return super().forward(*args) * self.calls


def test_a_base_that_answers_otherwise_each_time_is_caught():
    report = check_adapter(base(Counting), *batch(), adapter=Sound)
    assert "off is the base" in failing(report)


class Noisy(ToyFuser):
    def forward(self, *args):
        fused = super().forward(*args)
        return fused + torch.rand_like(fused) if self.training else fused


def test_what_cannot_be_compared_is_skipped_with_the_reason():
    report = check_adapter(base(Noisy), *batch(), adapter=Sound)
    assert row(report, "fresh is the base, train").result == "skipped"
    assert "draws at random" in row(report, "fresh is the base, train").note
    assert row(report, "fresh is the base, eval").result == "passed"


class NoMasks(nn.Module):
    """One tensor comes out, and no mask goes in."""

    def __init__(self):
        super().__init__()
        self.clips, self.words, self.score = nn.Linear(VIDEO_DIM, DIM), nn.Linear(QUERY_DIM, DIM), nn.Linear(DIM, 1)

    def forward(self, video, query):
        return self.score(self.clips(video) * self.words(query).mean(1, keepdim=True)).squeeze(-1)


class NoMasksAdapter(Adapter):
    kinds: ClassVar = {"": "logits"}
    dim = DIM

    def embed(self, video, query):

        return Pair(
            self.base.clips(video),
            self.base.words(query),
            video.new_ones(video.shape[:2]),
            query.new_ones(query.shape[:2]),
        )

    def ground(self, pair):
        return Grounding(self.base.score(pair.video * pair.query.mean(1, keepdim=True)).squeeze(-1), None)

    def relate(self, pair):
        raise ValueError("this base scores no clips")  # as an adapter of such a base may: the check has to tell


def test_without_masks_and_without_clip_scores():
    video, query, *_ = inputs()
    for model in (NoMasks(), wrap_model(NoMasks(), adapter=NoMasksAdapter, relevance="pair")):
        adapter = None if hasattr(model, "base") else NoMasksAdapter
        report = check_adapter(model, video, query=query, adapter=adapter)
        skipped = [finding.check for finding in report.findings if finding.result == "skipped"]
        assert report.ok and skipped == [*PADDING, "relate is ground's relevance"], str(report)
    wrapped = wrap_model(NoMasks(), adapter=NoMasksAdapter)
    report = check_adapter(wrapped, video, query)
    assert "relevance='pair'" in row(report, "relate is ground's relevance").note


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_of_the_model_changes(frozen):
    model = shake(wrap_model(base(), adapter=Sound, freeze_base=frozen)).train()
    given = batch()
    before = copy.deepcopy((model.state_dict(), given))
    modes = [module.training for module in model.modules()]
    learning = [parameter.requires_grad for parameter in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    report = check_adapter(model, *given)
    assert report.ok, str(report)
    assert all(
        torch.equal(one, other) for one, other in zip(before[0].values(), model.state_dict().values(), strict=True)
    )
    assert all(torch.equal(one, other) for one, other in zip(before[1], given, strict=True))
    assert modes == [module.training for module in model.modules()]
    assert learning == [parameter.requires_grad for parameter in model.parameters()]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist() and model.relevance is None


def test_the_report_is_a_table():
    lines = str(check_adapter(base(), *batch(), adapter=RelatesOtherwise)).splitlines()
    assert lines[0].split() == ["check", "result", "figure", "what", "to", "change"]
    assert max(map(len, lines)) <= 100
    (line,) = (line for line in lines if line.startswith("relate is ground's relevance"))
    assert "failed" in line and "the two differ. relate must" in line


def test_wrong_arguments_are_told_at_once():
    with pytest.raises(TypeError, match="no adapter knows NoMasks"):
        check_adapter(NoMasks(), *inputs()[:2])
    with pytest.raises(ValueError, match=r"the base itself does not run on these inputs: TypeError: .*; give check_ad"):
        check_adapter(base(), *inputs(), adapter=Sound)


def test_a_kind_that_does_not_exist():
    class Misspelt(Sound):
        kinds: ClassVar = {**KINDS, "pred_logits": "logit"}

    report = check_adapter(base(), *batch(), adapter=Misspelt)
    assert "the kind of output 'pred_logits' must be one of" in report.failures[0].note
    assert report.failures[1].note == "as above" and len(report.findings) == 17


@pytest.mark.parametrize("build", [tuple_base, dict_base])
def test_a_model_within_torchs_wrappers_and_under_no_grad(build):
    with torch.inference_mode():
        report = check_adapter(nn.DataParallel(wrap_model(build())), *inputs())
    assert {finding.check for finding in report.failures} <= {"every output has a kind"}, str(report)
