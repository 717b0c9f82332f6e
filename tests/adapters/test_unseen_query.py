"""What a base computes of a video before it meets the query stays so behind HERO's filter, asked by gradient.

A loss that tells a video's own query from others has nothing left to do once the clips were filtered by their own.
"""

from __future__ import annotations

import pytest
import torch

from hero_plugin import HeroConfig, wrap_model
from tests.adapters import test_flash_vtg
from tests.adapters.authors import UPSTREAM
from tests.adapters.detr_bases import BASES, RELATIVES, batch, build, flat, marked, model_of, run, without_dropout
from tests.core import emb
from tests.core.bases import shake

NEGATIVES = {".saliency_scores_neg", ".t2vattnvalues_neg", ".0.saliency_scores_neg"}
EVENTS = {".pred_event_spans"}
"""What docs/concepts/bases.md names: a negative pair's clips were filtered by their own query, and so were those that
EaTR's events are read from, but what these are compared with says nothing of a query."""


def outputs_and_words(model, projection, call):
    """The outputs of a forward, by their paths, and the projected words that they were made of."""
    words = []
    hook = projection.register_forward_hook(lambda *call: words.append(call[-1]))
    found = flat(call(model))
    hook.remove()
    return found, words[0]


def blind(model, projection, call):
    """The outputs whose rows do not depend on the words of the same row."""
    outputs, words = outputs_and_words(model, projection, call)
    names = set()
    for name, tensor in outputs.items():
        seen = False
        rows = tensor if len(tensor) == len(words) else [tensor] * len(words)
        for row, own in enumerate(rows):
            if own.requires_grad:
                weights = torch.linspace(0.5, 1.5, own.numel()).view_as(own)
                (gradient,) = torch.autograd.grad((own * weights).sum(), words, retain_graph=True, allow_unused=True)
                seen = seen or (gradient is not None and bool(gradient[row].any()))
        if not seen:
            names.add(name)
    return names


def wrapped(base):
    model = shake(wrap_model(base, config=HeroConfig(levels=2, stride=1, dropout=0.0)), 0.02)
    with torch.no_grad():
        model.hero.sgvf.strength.fill_(0.5)
    return model


@pytest.mark.parametrize("name", [marked(name) for name in (*BASES, *RELATIVES)])
def test_what_sees_no_query_in_a_detr_sees_none_behind_the_filter(name):
    base, _ = build(name, contrastive_align_loss=name in (*UPSTREAM, *BASES[:3]))
    shake(without_dropout(base).train(), 0.02)  # EaTR's spans start without weights
    inputs = batch(name)
    if model_of(name) == "cg_detr":
        inputs["vid"] = ["one_0_150", "two_0_150", "three_0_150"]
    before = blind(base, base.input_txt_proj, lambda model: run(name, model, inputs))
    model = wrapped(base)
    after = blind(model, base.input_txt_proj, lambda model: run(name, model, inputs))
    assert before - after <= NEGATIVES | EVENTS, before - after
    if model_of(name) == "tr_detr":
        assert {".src_vid_ed", ".src_vid_cls_ed"} <= before
    if model_of(name) == "cg_detr":
        assert {".memory_moment", ".nmmemory_moment", ".src_vid"} <= before


@pytest.mark.upstream
def test_what_sees_no_query_in_flashvtg_sees_none_behind_the_filter():
    base, _ = test_flash_vtg.build()
    shake(without_dropout(base).train(), 0.02)
    inputs = test_flash_vtg.inputs()
    inputs["vid"] = ["one_0_150", "two_0_150", "three_0_150"]
    before, after = (blind(m, base.input_txt_proj, lambda model: model(**inputs)) for m in (base, wrapped(base)))
    assert before - after <= NEGATIVES, before - after


def test_all_of_embs_scores_see_the_query():
    base = emb.emb().train()
    inputs = emb.batch()
    before = blind(base, base.embedding_net, lambda model: model(*inputs))
    assert before == {".3", ".5"}  # proposals and their mask, of the lengths alone
    assert before == blind(wrapped(base), base.embedding_net, lambda model: model(*inputs)) & before
