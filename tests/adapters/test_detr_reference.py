"""The reference Moment-DETR, QD-DETR and TR-DETR, without their authors' code."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hero_plugin.adapters.cpu_ops import Dropout
from hero_plugin.adapters.detr.matcher import paired_generalized_temporal_iou, span_cxw_to_xx
from hero_plugin.adapters.detr.model import summed_projection
from hero_plugin.adapters.detr.transformer import MultiheadAttention, attend_with_mask, split_heads, text_to_video_mask
from hero_plugin.adapters.tr_detr import best_moment, slice_clips
from tests.adapters.detr_bases import MODELS, SMALL, Case, flat, reference, total
from tests.old_torch import HALF_TYPES

NARROW = {"hidden_dim": 32}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.mark.parametrize("fields", [{}, {"contrastive_align_loss": True}, {"aux_loss": False, "dec_layers": 3}])
def test_outputs_have_the_shapes_and_keys_of_the_family(name, fields):
    outputs = reference(name, **NARROW, **fields)(*Case.random(3, 11, 5).inputs())
    keys = {"pred_logits", "pred_spans", "saliency_scores"}
    assert outputs["pred_logits"].shape == outputs["pred_spans"].shape == (3, 10, 2)
    assert outputs["saliency_scores"].shape == (3, 11)
    if fields.get("aux_loss", True):
        keys.add("aux_outputs")
        assert [set(layer) >= {"pred_logits", "pred_spans"} for layer in outputs["aux_outputs"]] == [True]
    if fields.get("contrastive_align_loss"):
        keys |= {"proj_queries", "proj_txt_mem", "proj_vid_mem"}
        assert torch.allclose(outputs["proj_vid_mem"].norm(dim=-1), torch.ones(3, 11))
        assert outputs["proj_txt_mem"].shape == (3, 5 if name == "moment_detr" else 0, 64)
    of_one = {
        "moment_detr": set(),
        "qd_detr": {"video_mask", "saliency_scores_neg"},
        "tr_detr": {"video_mask", "src_txt_ed", "src_vid_ed", "src_txt_cls_ed", "src_vid_cls_ed"},
    }
    assert set(outputs) == keys | of_one[name]


NAMES = {"moment_detr": "d3ab8b4422d32f32", "qd_detr": "e719b7fde8023db5", "tr_detr": "b0f049d86b901177"}
"""Of the lines "name shape" of a default model's weights, sorted: what upstream checkpoints must hold."""


def test_names_and_shapes_of_weights_stay(name):
    model, config = MODELS[name]
    lines = sorted(f"{n} {tuple(p.shape)}" for n, p in model(config(text_dim=512, video_dim=2818)).state_dict().items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == NAMES[name]


def test_train_is_eval_but_for_seeded_dropout(name):
    inputs = Case.random(3, 11, 5).inputs()
    model = reference(name, **NARROW)
    plain = flat(model.eval()(*inputs))
    assert all(torch.equal(x, plain[n]) for n, x in flat(model.eval()(*inputs)).items())
    assert all(torch.allclose(x, plain[n], atol=1e-5) for n, x in flat(model.train()(*inputs)).items())
    model = reference(name, **NARROW, dropout=0.1, input_dropout=0.5, vsl_dropout=0.1).train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(model(*inputs)["pred_logits"])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(("name", "batch"), [("moment_detr", 3), ("qd_detr", 1)])
def test_padding_changes_nothing(name, batch):
    """Within a batch QD-DETR depends on others' padding, TR-DETR's pooling on a sample's own: both as upstream."""
    model, case = reference(name, **NARROW).eval(), Case.random(batch, 11, 5)
    wider = Case(
        torch.cat([case.text, torch.randn(batch, 3, case.text.shape[2])], 1),
        nn.functional.pad(case.text_mask, (0, 3)),
        torch.cat([case.video, torch.randn(batch, 4, case.video.shape[2])], 1),
        nn.functional.pad(case.video_mask, (0, 4)),
    )
    wanted, got = model(*case.inputs()), model(*wider.inputs())
    real = case.video_mask.bool()
    assert torch.allclose(got["pred_spans"], wanted["pred_spans"], atol=1e-5)
    assert torch.allclose(got["pred_logits"], wanted["pred_logits"], atol=1e-5)
    assert torch.allclose(got["saliency_scores"][:, :11][real], wanted["saliency_scores"][real], atol=1e-5)


def test_a_query_of_padding_alone_stays_finite(name):
    model, case = reference(name, **NARROW), Case.random(3, 11, 5)
    case.text_mask[1] = 0
    outputs = model(*case.inputs())
    total(outputs).backward()
    assert all(x.isfinite().all() for x in flat(outputs).values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_half_precision_is_close_and_trains(name, dropout, dtype):
    model, case = reference(name, **NARROW, dropout=dropout), Case.random(3, 11, 5)
    wanted = reference(name, **NARROW)
    wanted.load_state_dict(model.state_dict())
    with torch.autocast("cpu", dtype=dtype):
        outputs = model(*case.inputs())
    total({k: v for k, v in outputs.items() if k not in ("aux_outputs", "video_mask")}).float().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    if not dropout:
        spans = wanted(*case.inputs())["pred_spans"]
        assert (outputs["pred_spans"].float() - spans).abs().max() < 0.05


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float64) for name in MODELS), ("moment_detr", torch.bfloat16), ("qd_detr", torch.bfloat16)],
)
def test_whole_models_in_other_types(name, dtype):
    outputs = reference(name, **NARROW).to(dtype).eval()(*Case.random(3, 11, 5).inputs(dtype))
    assert outputs["pred_spans"].dtype == outputs["saliency_scores"].dtype == dtype
    assert outputs["pred_spans"].isfinite().all()


def test_a_forward_reads_no_value_of_a_tensor(name):
    """On the meta device there is none to read: what would wait for a GPU elsewhere raises there."""
    model = reference(name, **NARROW, use_txt_pos=True).to("meta")
    outputs = model(*(x.to("meta") for x in Case.random(3, 11, 5).inputs()))
    assert outputs["saliency_scores"].shape == (3, 11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_mask": torch.ones(3, 4)}, r"src_txt_mask must be \(3, 5\).*got \(3, 4\)"),
        ({"video_mask": torch.ones(3, 11, 1)}, r"src_vid_mask must be \(3, 11\).*got \(3, 11, 1\)"),
        ({"text": torch.ones(2, 5, 12), "text_mask": torch.ones(2, 5)}, "share the batch size, got 2 and 3"),
        ({"text": torch.ones(3, 0, 12), "text_mask": torch.ones(3, 0)}, r"src_txt must be .*got \(3, 0, 12\)"),
        ({"video": torch.ones(3, 11, 17)}, r"features must be \(B, L, 18\).*video_dim"),
        ({"text": torch.ones(3, 40, 12), "text_mask": torch.ones(3, 40)}, "40 words.*max_q_l=32"),
    ],
)
def test_inputs_that_do_not_fit_get_a_clear_error(name, change, message):
    case = Case.random(3, 11, 5)
    vars(case).update(change)
    with pytest.raises(ValueError, match=message):
        reference(name, **NARROW, use_txt_pos=True)(*case.inputs())


@pytest.mark.parametrize("name", ["qd_detr", "tr_detr"])
def test_audio_of_another_length_gets_a_clear_error(name):
    case = Case.random(3, 11, 5)
    with pytest.raises(ValueError, match=r"src_aud must be \(3, 11, Da\).*got \(3, 12, 2\)"):
        reference(name, **NARROW)(*case.inputs(), torch.ones(3, 12, 2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_dim": 36}, "nheads must divide hidden_dim"),
        ({"hidden_dim": 6, "nheads": 2}, "multiple of 4"),
        ({"n_input_proj": 4}, "n_input_proj"),
        ({"dropout": 1.0}, "dropout"),
        ({"span_loss_type": "l2"}, "span_loss_type"),
        ({"num_queries": 0}, "num_queries"),
    ],
)
def test_sizes_that_no_model_can_have_get_a_clear_error(name, fields, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name][1](**{**SMALL, **fields})


@pytest.mark.parametrize("name", ["qd_detr", "tr_detr"])
@pytest.mark.parametrize("fields", [{"pre_norm": True}, {"span_loss_type": "ce"}])
def test_what_only_moment_detr_can_do_is_refused_elsewhere(name, fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        MODELS[name][1](**SMALL, **fields)


@pytest.mark.parametrize("same", [True, False])
def test_attention_is_pytorchs(same):
    ours, theirs = MultiheadAttention(16, 4, 0.0), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    key = torch.randn(3, 7, 16)
    query = key if same else torch.randn(3, 5, 16)
    value, keep = torch.randn(3, 7, 16), torch.rand(3, 1, 1, 7) > 0.3
    keep[..., 0] = True
    wanted, _ = theirs(query, key, value, key_padding_mask=~keep[:, 0, 0])
    assert torch.allclose(ours(query, key, value, keep), wanted, atol=1e-6)


def test_attention_with_dropout_is_attention():
    """Dropout so rare that none is drawn, by the path that draws."""
    query, key, value = (split_heads(torch.randn(2, n, 16), 4) for n in (5, 7, 7))
    keep = torch.rand(2, 1, 5, 7) > 0.3
    keep[..., 0] = True
    wanted = attend_with_mask(query, key, value, keep, Dropout(0.0))
    assert torch.allclose(attend_with_mask(query, key, value, keep, Dropout(1e-9)), wanted, atol=1e-6)
    dropped = attend_with_mask(query, key, value, keep, Dropout(0.5))
    assert not torch.allclose(dropped, wanted, atol=1e-2)


@given(batch=st.integers(1, 5), heads=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_the_text_to_video_mask_is_upstreams(batch, heads, seed):
    draw = torch.Generator().manual_seed(seed)
    video, text = torch.rand(batch, 4, generator=draw) > 0.5, torch.rand(batch, 3, generator=draw) > 0.5
    text[:, 0] = False
    keep = text_to_video_mask(video, text, heads)
    for b in range(batch):
        for h in range(heads):
            other = (b * heads + h) % batch
            for t in range(4):
                for w in range(3):
                    assert keep[b, h, t, w] == (not (text[b, w] or (video[other, t] and text[other, w])))


@given(
    clips=st.integers(1, 9),
    bounds=st.lists(st.tuples(st.integers(-14, 14), st.integers(-14, 14)), min_size=1, max_size=5),
)
def test_slices_are_pythons(clips, bounds):
    features = torch.arange(1.0, len(bounds) * clips * 2 + 1).view(len(bounds), clips, 2)
    first, last = torch.tensor(bounds).unbind(1)
    for row, got, (start, end) in zip(features, slice_clips(features, first, last), bounds, strict=True):
        wanted = row[start : end + 1]
        assert torch.equal(got, nn.functional.pad(wanted, (0, 0, 0, clips - len(wanted))))


def test_the_best_moment_is_the_likeliest_querys():
    logits = torch.tensor([[[0.0, 1.0], [2.0, 1.0]], [[3.0, 0.0], [2.0, 1.0]]])
    spans = torch.tensor([[[0.9, 0.1], [0.5, 0.3]], [[0.1, 0.5], [0.9, 0.1]]])
    first, last = best_moment(logits, spans, clips=8, clip_length=2)
    assert first.tolist() == [2, -2]  # 0.35 to 0.65, and -0.15 to 0.35, of eight clips
    assert last.tolist() == [5, 2]


@given(seed=st.integers(0, 1000))
def test_generalized_overlap_in_pairs(seed):
    draw = torch.Generator().manual_seed(seed)
    first, second = (span_cxw_to_xx(torch.rand(2, 6, 2, generator=draw)) for _ in range(2))
    of_all = paired_generalized_temporal_iou(first.unsqueeze(-2), second.unsqueeze(-3))
    assert of_all.shape == (2, 6, 6)
    assert of_all.abs().max() <= 1 + 1e-6
    assert torch.equal(of_all.diagonal(dim1=1, dim2=2), paired_generalized_temporal_iou(first, second))
    start, end = first.unbind(-1)
    center_width = torch.stack([(start + end) * 0.5, end - start], dim=-1)
    assert torch.allclose(span_cxw_to_xx(center_width), first, atol=1e-6)


def test_generalized_overlap_by_hand():
    first, second = torch.tensor([[0.0, 0.2], [0.5, 1.0], [0.3, 0.3]]), torch.tensor([[0.0, 0.3], [0.0, 1.0]])
    wanted = torch.tensor([[2 / 3, 0.2], [-0.2, 0.5], [0.0, 0.0]])
    got = paired_generalized_temporal_iou(first.unsqueeze(-2), second.unsqueeze(-3))
    assert torch.allclose(got, wanted, atol=1e-6)
    point = torch.tensor([[0.3, 0.3]])
    assert paired_generalized_temporal_iou(point, point).isfinite().all()


def test_a_summed_projection_is_the_sum_of_the_projection():
    linear, x = nn.Linear(8, 8), torch.randn(2, 5, 8)
    assert torch.allclose(summed_projection(linear, x), linear(x).sum(-1), atol=1e-5)
