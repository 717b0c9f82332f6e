"""Adapters of Moment-DETR, QD-DETR and TR-DETR, on our references, the authors' own classes, and lighthouse's."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from hero_plugin import HeroConfig, hero_state_dict, unwrap_model, wrap_criterion, wrap_model
from hero_plugin.adapters.detr import adapter
from hero_plugin.adapters.detr.adapter import DETRAdapter
from hero_plugin.adapters.moment_detr import MomentDETRAdapter
from hero_plugin.adapters.qd_detr import QDDETRAdapter
from hero_plugin.adapters.tr_detr import TRDETRAdapter
from hero_plugin.levels import unfold
from tests.adapters.authors import UPSTREAM
from tests.adapters.detr_bases import (
    AUDIO_DIM,
    BASES,
    DISTINCT,
    batch,
    build,
    by_name,
    flat,
    grounder_of,
    loss,
    marked,
    model_of,
    repeated,
    run,
    step,
    without_dropout,
)
from tests.core.bases import shake
from tests.old_torch import needs_compiler

ADAPTERS = {"moment_detr": MomentDETRAdapter, "qd_detr": QDDETRAdapter, "tr_detr": TRDETRAdapter}
SMALL = HeroConfig(levels=2, stride=1)
every_base = by_name(BASES)
every_distinct_base = by_name(DISTINCT)


@pytest.fixture
def in_double():
    """What a base makes in its forward is double as well; lighthouse's QD-DETR and TR-DETR need that."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def shaken_levels(name, levels=2):
    """A grounder, and a pair at levels that differ from one another."""
    base, _ = build(name)
    model = shake(wrap_model(base, levels=levels, stride=1), 0.05).eval()
    inputs = batch(name)
    pair = model.grounder.embed(**inputs)
    words = model.hero.words(pair.query, pair.query_mask)
    return model.grounder, pair, model.hero.clips(pair.video, words, pair.query_mask), words


def equal(one, other):
    one, other = flat(one), flat(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@every_base
def test_recognised_by_its_class_name(name):
    base, _ = build(name)
    model = wrap_model(base, config=SMALL)
    assert type(model.grounder) is ADAPTERS[model_of(name)]
    assert model.grounder.dim == base.transformer.d_model and unwrap_model(model) is base


@pytest.mark.parametrize("train", [True, False])
@every_base
def test_off_is_bit_identical(name, train):
    base, criterion = build(name)
    model = wrap_model(copy.deepcopy(base), config=HeroConfig.off()).train(train)
    results = []
    for one, its_criterion in ((base.train(train), criterion), (model, wrap_criterion(criterion, model.config))):
        outputs, total = step(name, one, its_criterion)
        results.append([outputs, total, [p.grad for p in one.parameters() if p.grad is not None]])
    assert equal(*results) and len(results[0][2]) > 50


@every_base
@torch.no_grad()
def test_ground_behind_the_seam_is_the_bases_own_forward(name):
    base, _ = build(name)
    grounder, inputs = grounder_of(base.eval()), batch(name)
    grounding, expected = grounder.ground(grounder.embed(**inputs)), base(**inputs)
    assert list(grounding.outputs) == list(expected) and equal(grounding.outputs, expected)
    assert torch.equal(grounding.relevance, expected["saliency_scores"])


@every_base
@torch.no_grad()
def test_equal_levels_give_the_bases_outputs(name, in_double):
    """In double, to see that a larger batch's rounding is all that differs."""
    base, _ = build(name)
    grounder, inputs = grounder_of(base.eval()), batch(name)
    pair = grounder.embed(**inputs)
    four = pair.at_levels(pair.video.expand(4, -1, -1, -1), pair.query.expand(4, -1, -1, -1))
    outputs, expected = flat(grounder.ground(four).outputs), flat(repeated(base(**inputs), grounder.kinds, 4))
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(outputs[key], value, rtol=0, atol=1e-12, msg=lambda m, key=key: f"{key} {m}")


@every_distinct_base
@torch.no_grad()
def test_folded_levels_equal_levels_run_one_by_one(name, in_double):
    """But for one negative a level: its last sample's, whose words are the first sample's at the next level."""
    grounder, pair, clips, words = shaken_levels(name, levels=4)
    folded = flat(unfold(grounder.ground(pair.at_levels(clips, words)).outputs, 4))
    for level in range(4):
        alone = pair.at_levels(clips[level : level + 1], words[level : level + 1])
        outputs = flat(grounder.ground(alone).outputs)
        negative = outputs.pop(".saliency_scores_neg", None)
        for key, value in outputs.items():
            torch.testing.assert_close(folded[key][level], value, rtol=0, atol=1e-11)
        if negative is not None:
            own = folded[".saliency_scores_neg"][level]
            torch.testing.assert_close(own[:-1], negative[:-1], rtol=0, atol=1e-11)
            query = torch.cat([words[(level + 1) % 4, :1], words[level, 1:]])
            query = torch.where(pair.query_mask.bool().unsqueeze(-1), query, pair.query)
            neighbour = pair.at_levels(clips[level : level + 1], query.unsqueeze(0))
            expected = grounder.ground(neighbour).outputs["saliency_scores_neg"][-1]
            torch.testing.assert_close(own[-1], expected, rtol=0, atol=1e-11)
            assert not torch.allclose(own[-1], negative[-1], rtol=0, atol=1e-6)


@by_name(["reference.qd_detr", "qd_detr"])
@torch.no_grad()
def test_a_compiled_qd_detr_relates_the_same(name, monkeypatch):
    grounder, pair, clips, words = shaken_levels(name)
    one = pair.at_levels(clips, words)
    grounder.relate(one)  # a compiled model cannot ask whether that is right
    monkeypatch.setattr(adapter, "is_compiling", lambda: True)
    torch.testing.assert_close(grounder.relate(one), grounder.ground(one).relevance, rtol=0, atol=1e-6)


CALLS = {  # of decoder layers, of the encoder
    "moment_detr": (0, 1),
    "qd_detr": (0, 1),
    "tr_detr": (2, 2),
}


@every_base
@torch.no_grad()
def test_relate_leaves_out_decoder_and_negative_pairs(name):
    base, _ = build(name)
    grounder = grounder_of(base.eval())
    calls = []
    for layer in base.transformer.decoder.layers:
        layer.register_forward_hook(lambda *_: calls.append("decoder"))
    base.transformer.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    pair = grounder.embed(**batch(name))
    grounder.relate(pair)  # compares the two ways, where the class is not ours
    for _ in range(2):
        calls.clear()
        grounder.relate(pair)
        assert (calls.count("decoder"), calls.count("encoder")) == CALLS[model_of(name)]


@every_distinct_base
@torch.no_grad()
def test_arguments_by_place_and_by_name(name):
    base, _ = build(name)
    model, inputs = wrap_model(base, config=SMALL).eval(), batch(name)
    assert equal(model(**inputs), model(*inputs.values()))
    with pytest.raises(TypeError, match="missing a required argument: 'src_vid_mask'"):
        model(*list(inputs.values())[:3])
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'nonsense'"):
        model(**inputs, nonsense=1)
    with pytest.raises(TypeError, match="multiple values for argument 'src_txt'"):
        model(*inputs.values(), src_txt=inputs["src_txt"])


@by_name(name for name in BASES if name not in ("moment_detr", "reference.moment_detr"))
@torch.no_grad()
def test_audio_is_part_of_the_clips(name):
    base, _ = build(name, audio=True)
    grounder, inputs = grounder_of(base.eval()), batch(name)
    audio = {
        "src_aud": torch.randn(*inputs["src_vid"].shape[:2], AUDIO_DIM),
        "src_aud_mask": inputs["src_vid_mask"],
    }
    expected = base(**inputs, **audio)
    assert equal(grounder.ground(grounder.embed(**inputs, **audio)).outputs, expected)
    assert equal(grounder.ground(grounder.embed(*inputs.values(), *audio.values())).outputs, expected)
    assert grounder.base is base and wrap_model(base, config=SMALL)(**inputs, **audio).keys() == expected.keys()


def variants():
    for name in DISTINCT:
        yield marked(name, {"aux_loss": False})
        yield marked(name, {"contrastive_align_loss": True})
        if model_of(name) == "moment_detr":
            yield marked(name, {"span_loss_type": "ce", "contrastive_align_loss": True})


@by_name(name for name in BASES if model_of(name) == "tr_detr")
@torch.no_grad()
def test_contrastive_losses_compare_unfiltered_clips(name):
    base, _ = build(name)
    inputs, model = batch(name), shake(wrap_model(base, config=SMALL), 0.05).eval()
    outputs, expected = model(**inputs), base(**inputs)
    for key in ("src_vid_ed", "src_txt_ed", "src_vid_cls_ed", "src_txt_cls_ed"):
        assert torch.equal(outputs[key], expected[key]), key
    assert not torch.allclose(outputs["saliency_scores"], expected["saliency_scores"])


@pytest.mark.parametrize(("name", "options"), list(variants()))
@torch.no_grad()
def test_outputs_keep_their_keys_shapes_and_ranges(name, options):
    base, _ = build(name, **options)
    inputs = batch(name)
    expected = base.eval()(**inputs)
    for config in (SMALL, HeroConfig.paper(levels=2, stride=1)):
        model = shake(wrap_model(base, config=config), 0.02).eval()
        outputs = model(**inputs)
        assert list(outputs) == list(expected)
        assert {key: x.shape for key, x in flat(outputs).items()} == {key: x.shape for key, x in flat(expected).items()}
        for key, value in flat(outputs).items():
            if key.endswith("pred_spans") and options.get("span_loss_type") != "ce":
                assert ((value >= 0) & (value <= 1)).all()
            if ".proj_" in key:
                torch.testing.assert_close(value.norm(dim=-1), torch.ones(value.shape[:-1]))
        assert "video_mask" not in outputs or torch.equal(outputs["video_mask"], inputs["src_vid_mask"])
        assert set(model.train()(**inputs)) - set(expected) == {"hero"}
    classified = options.get("span_loss_type") == "ce"
    assert model.grounder.kinds["pred_spans"] == ("logits" if classified else "probability")


@every_distinct_base
def test_a_fresh_wrapper_is_the_base(name):
    """All levels start at the query: same predictions, and the same loss but for HERO's."""
    base, criterion = build(name)
    without_dropout(base).train()
    model = wrap_model(copy.deepcopy(base), config=SMALL, dropout=0.0)
    totals = [step(name, one, criterion)[1] for one in (base, model)]
    torch.testing.assert_close(*totals, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        one, other = (flat(part.eval()(**batch(name))) for part in (base, model))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=1e-5)


@every_distinct_base
def test_three_training_steps_move_all_of_hero(name):
    """Nothing of HERO's is left without a gradient; of the base's, only what the base itself leaves unused."""
    base, criterion = build(name)
    step(name, base.train(), criterion)
    unused = {key for key, parameter in base.named_parameters() if parameter.grad is None}
    assert {key.split(".")[0] for key in unused} == {"txt_position_embed"}  # read with use_txt_pos only
    model = shake(wrap_model(base, config=SMALL), 0.01).train()
    criterion = wrap_criterion(criterion, model.config)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    before = {key: value.clone() for key, value in model.named_parameters()}
    for seed in range(3):
        outputs, total = step(name, model, criterion, seed)
        assert total.isfinite() and set(outputs["hero"]) == {"relevance", "masked_relevance", "video_mask", "settings"}
        missing = {key for key, parameter in model.named_parameters() if parameter.grad is None}
        assert missing == {f"base.{key}" for key in unused}
        optimizer.step()
    assert all(value.isfinite().all() for value in model.parameters())
    assert not [key for key, value in model.hero.named_parameters() if torch.equal(value, before[f"hero.{key}"])]


@by_name(UPSTREAM)
def test_checkpoints(name):
    trained, _ = build(name)
    shake(trained, 0.02)
    base, _ = build(name)
    model = wrap_model(base, config=SMALL).eval()
    assert {key.split(".")[0] for key in model.state_dict()} == {"hero", "base"}
    assert [key[5:] for key in model.state_dict() if key.startswith("base.")] == list(trained.state_dict())
    model.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert equal(unwrap_model(model)(**batch(name)), trained.eval()(**batch(name)))
        other = wrap_model(trained, config=SMALL).eval()
        other.load_state_dict(hero_state_dict(shake(model, 0.02)))
        other.load_state_dict(model.state_dict())
        assert equal(other(**batch(name)), model(**batch(name)))


@by_name(UPSTREAM)
def test_recomputed_and_copied(name):
    base, criterion = build(name)
    without_dropout(base)
    kept = shake(wrap_model(base, config=SMALL, dropout=0.0), 0.01).train()
    recomputed = wrap_model(copy.deepcopy(base), config=SMALL, dropout=0.0, checkpoint=True).train()
    recomputed.load_state_dict(kept.state_dict())
    criterion = wrap_criterion(criterion, kept.config)
    totals = [step(name, model, criterion)[1] for model in (kept, recomputed)]
    # One by one, the last negative pair of QD-DETR meets words of its own level (docs/concepts/bases.md).
    alike = name != "qd_detr"
    torch.testing.assert_close(*totals, **({} if alike else {"rtol": 1e-3, "atol": 1e-3}))
    for (key, one), other in zip(kept.named_parameters(), recomputed.parameters(), strict=True):
        if one.grad is not None and alike:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=lambda m, key=key: f"{key} {m}")
    twin = copy.deepcopy(recomputed)
    kept.zero_grad()
    recomputed.zero_grad()
    torch.testing.assert_close(step(name, twin, criterion)[1], totals[1])
    assert all(parameter.grad is None for parameter in recomputed.parameters())
    assert sum(parameter.grad is not None for parameter in twin.parameters()) > 50


# The authors' TR-DETR does not run under autocast on a CPU itself.
@by_name(name for name in DISTINCT if name != "tr_detr")
def test_autocast(name):
    base, criterion = build(name)
    model = shake(wrap_model(base, config=SMALL), 0.01).train()
    criterion = wrap_criterion(criterion, model.config)
    inputs = batch(name)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run(name, model, inputs)
    as_float = {key: value.float() if torch.is_tensor(value) else value for key, value in outputs.items()}
    as_float["aux_outputs"] = [{key: value.float() for key, value in aux.items()} for aux in outputs["aux_outputs"]]
    total = loss(criterion, as_float, inputs)
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
@needs_compiler
def test_compiled_in_one_graph():
    """HERO, the adapter, and the base's own forward behind the seam, the masked path's as well."""
    torch._dynamo.reset()
    name = "reference.moment_detr"
    base, _ = build(name, enc_layers=1, dec_layers=1)
    model = shake(wrap_model(without_dropout(base), config=SMALL, dropout=0.0), 0.02).train()
    results = []
    for one in (model, torch.compile(model, backend="eager", fullgraph=True)):
        torch.manual_seed(4)
        with torch.no_grad():
            results.append(flat(one(**batch(name))))
    torch._dynamo.reset()
    assert ".hero.masked_relevance" in results[0] and results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("missing", ["input_vid_proj", "input_txt_proj", "transformer"])
@every_distinct_base
def test_a_base_in_the_wrong_shape_names_what_is_missing(name, missing):
    base, _ = build(name)
    delattr(base, missing)
    adapter = ADAPTERS[model_of(name)].__name__
    with pytest.raises(TypeError, match=f"was recognised by {adapter}, but it has no attribute '{missing}"):
        wrap_model(base)


def changed(base, **namespace):
    """The base as an instance of a subclass."""
    base.__class__ = type("Fork", (type(base),), namespace)
    return base


@every_distinct_base
@torch.no_grad()
def test_a_fork_keeps_its_change(name):
    base, _ = build(name)
    upstream = type(base).forward

    def forward(self, *args, **kwargs):
        outputs = upstream(self, *args, **kwargs)
        return {**outputs, "saliency_scores": outputs["saliency_scores"] + 3, "name": "fork"}

    base.eval()
    plain = wrap_model(copy.deepcopy(base), config=SMALL)
    fork = wrap_model(changed(base, forward=forward), config=SMALL)
    pair = plain.grounder.embed(**batch(name))
    torch.testing.assert_close(fork.grounder.relate(pair), plain.grounder.relate(pair) + 3)
    outputs = fork(**batch(name))
    torch.testing.assert_close(outputs["saliency_scores"], plain(**batch(name))["saliency_scores"] + 3)
    assert outputs["name"] == "fork"


def mean_logit(model, outputs):
    return outputs["pred_logits"].mean((1, 2))


def best_window(model, outputs):
    return outputs["pred_logits"][..., 0].argmax(1) / 10


def not_yet(model, outputs):
    return outputs["pred_logits"].mean((1, 2)) * model.gate


@pytest.mark.parametrize("read", [mean_logit, best_window, not_yet], ids=lambda read: read.__name__)
@by_name(["reference.moment_detr", "qd_detr", "lighthouse.eatr"])
def test_a_fork_whose_saliency_reads_the_decoder_runs_it(name, read):
    """Also if it says nothing yet, with a gate that starts at zero."""
    base, _ = build(name)
    upstream = type(base).forward

    def forward(self, *args, **kwargs):
        outputs = upstream(self, *args, **kwargs)
        return {**outputs, "saliency_scores": outputs["saliency_scores"] + read(self, outputs).unsqueeze(1)}

    base.gate = torch.nn.Parameter(torch.zeros(()))
    grounder = grounder_of(changed(base.train(), forward=forward))
    pair = grounder.embed(**batch(name))
    grounder.relate(pair)
    assert base.training and base.transformer.decoder.training
    with torch.no_grad():
        base.gate.fill_(2.0)
        base.eval()
        torch.testing.assert_close(grounder.relate(pair), grounder.ground(pair).relevance)


def test_a_fork_that_renamed_its_arguments_is_told():
    base, _ = build("reference.qd_detr")
    forward = lambda self, words, src_txt_mask, src_vid, src_vid_mask: None  # noqa: E731
    base.__class__ = type("QDDETR", (torch.nn.Module,), {"forward": forward})
    with pytest.raises(TypeError, match=r"QDDETR was recognised by QDDETRAdapter, but its forward takes no argument "):
        wrap_model(base)


@torch.no_grad()
def test_a_fork_whose_decoder_is_built_otherwise():
    """No layers to leave out: relate runs it all, and is right still."""
    base, _ = build("reference.moment_detr")
    decoder = base.transformer.decoder
    base.transformer.reader = decoder
    del base.transformer.decoder
    changed(base.transformer, decoder=property(lambda self: self.reader))
    base.transformer.decoder.stack = decoder.layers
    del decoder.layers
    changed(decoder, forward=lambda self, x, *rest, **options: self.stack[0].norm1(x).unsqueeze(0))
    grounder = grounder_of(base.eval())
    pair = grounder.embed(**batch("reference.moment_detr"))
    assert grounder.saliency_stubs() == {}
    torch.testing.assert_close(grounder.relate(pair), grounder.ground(pair).relevance)


@torch.no_grad()
def test_the_shared_adapter_serves_any_base_of_this_shape():
    base, _ = build("reference.qd_detr")
    base.__class__ = type("Unheard", (type(base).__mro__[1],), dict(vars(type(base))))
    with pytest.raises(TypeError, match="no adapter knows Unheard"):
        wrap_model(base)
    model = wrap_model(base.eval(), adapter=DETRAdapter)
    inputs = batch("reference.qd_detr")
    pair = model.grounder.embed(**inputs)
    assert equal(model.grounder.ground(pair).outputs, base(**inputs))
    assert equal(model.grounder.relate(pair), model.grounder.ground(pair).relevance)
    assert list(model(**inputs)) == list(base(**inputs))


@torch.no_grad()
def test_a_forward_that_takes_anything_more_by_name():
    base, _ = build("reference.moment_detr")
    upstream = type(base).forward

    @functools.wraps(upstream)
    def forward(self, src_txt, src_txt_mask, src_vid, src_vid_mask, **more):
        assert more.pop("vid") == ["a", "b", "c"] * (len(src_vid) // 3)
        return {**upstream(self, src_txt, src_txt_mask, src_vid, src_vid_mask), **more}

    del forward.__wrapped__
    model = wrap_model(changed(base.eval(), forward=forward))
    outputs = model(**batch("reference.moment_detr"), vid=["a", "b", "c"], note="x")
    assert outputs["note"] == "x"
