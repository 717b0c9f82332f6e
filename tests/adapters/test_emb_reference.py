"""The reference EMB by itself: shapes, gradients, padding, precision and messages."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hero_plugin import wrap_model
from hero_plugin.adapters.cpu_ops import Dropout
from hero_plugin.adapters.emb import EMB, EMBConfig, elastic_threshold
from hero_plugin.adapters.emb.encoder import surrounding_max
from hero_plugin.adapters.emb.layers import bidirectional_lstm, count_real
from hero_plugin.adapters.emb.proposals import ProposalMap
from hero_plugin.integrations.tools.bench.upstream import load_upstream_emb
from tests.adapters.emb_cases import Case, small_config, total, word_vectors
from tests.old_torch import HALF_TYPES, needs_compiler


def model_of(seed=0, **fields):
    torch.manual_seed(seed)
    return EMB(small_config(**fields), word_vectors())


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 8, 3), (3, 50, 5), (2, 128, 1)])
def test_shapes(size):
    batch, clips, _ = size
    case = Case.random(*size)
    h_score, start, end, proposals, p_score, p_mask = model_of().eval()(*case.inputs())
    entries = (-(-clips // 8)) ** 2
    assert h_score.shape == start.shape == end.shape == (batch, clips)
    assert p_score.shape == p_mask.shape == (batch, entries)
    assert proposals.shape == (batch, entries, 2) and proposals.dtype == torch.long
    real = case.v_mask.bool()
    assert (h_score[~real] == 0).all() and (h_score[real] > 0).all()
    assert (proposals[..., 0] <= proposals[..., 1]).all()
    assert (proposals[..., 1] < case.v_mask.sum(1, keepdim=True)).all()


def test_gradients_reach_every_trainable_parameter():
    model, case = model_of(num_layers=2), Case.random(4, 60, 8)
    assert (case.word_ids == 1).any(), "the case has no unknown word"
    total(case.losses(model, model(*case.inputs()))).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_only_fixed_tables_and_unused_characters_are_frozen():
    frozen = {name for name, p in model_of().named_parameters() if not p.requires_grad}
    tables = {"embedding_net.word_emb.pad_vec", "embedding_net.word_emb.glove_vec"}
    assert tables < frozen
    assert all(name.startswith("embedding_net.char_emb.") for name in frozen - tables)


def test_characters_are_not_needed():
    model, case = model_of().eval(), Case.random(3, 20, 4)
    word_ids, char_ids, *rest = case.inputs()
    with_them, without = model(word_ids, char_ids, *rest), model(word_ids, None, *rest)
    assert all(torch.equal(a, b) for a, b in zip(with_them, without, strict=True))


def test_masks_may_be_bool():
    model, case = model_of().eval(), Case.random(3, 20, 4)
    *features, v_mask, q_mask = case.inputs()
    as_float, as_bool = model(*features, v_mask, q_mask), model(*features, v_mask.bool(), q_mask.bool())
    assert all(torch.equal(a, b) for a, b in zip(as_float, as_bool, strict=True))
    case.v_mask = v_mask.bool()
    assert total(case.losses(model, as_bool)).isfinite()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), extra=st.integers(1, 3))
def test_padding_changes_nothing_at_real_positions(seed, extra):
    """Lengths fill their cells: where they do not, upstream's guide sees the padding beside the last clip."""
    model, case = model_of().eval(), Case.random(3, 32, 5, seed=seed, multiple=8)
    word_ids, _, video, v_mask, q_mask = case.inputs()
    noise = torch.randn_like(video) * (1 - v_mask.unsqueeze(-1))
    plain = model(word_ids, None, video, v_mask, q_mask)
    widen = nn.functional.pad
    padded = model(
        widen(word_ids, (0, extra)),
        None,
        widen(video + noise, (0, 0, 0, 8 * extra)),
        widen(v_mask, (0, 8 * extra)),
        widen(q_mask, (0, extra)),
    )
    real = v_mask.bool()
    for a, b in zip(plain[:3], padded[:3], strict=True):
        torch.testing.assert_close(b[:, :32][real], a[real], atol=2e-5, rtol=0)
    ours, size = plain[5].view(3, 4, 4).bool(), 4 + extra
    torch.testing.assert_close(
        padded[4].view(3, size, size)[:, :4, :4][ours], plain[4].view(3, 4, 4)[ours], atol=2e-5, rtol=0
    )
    assert padded[5].sum() == plain[5].sum()


def test_a_batch_is_its_samples():
    model, case = model_of().eval(), Case.random(4, 40, 6)
    together = model(*case.inputs())
    for index in range(4):
        alone = model(*(x[index : index + 1] for x in case.inputs()))
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0].double(), b[index].double(), atol=1e-5, rtol=0)


def test_same_seed_same_bits():
    case = Case.random(3, 30, 5)
    runs = []
    for _ in range(2):
        model = model_of(drop_rate=0.2)
        torch.manual_seed(7)
        loss = total(case.losses(model, model(*case.inputs())))
        loss.backward()
        runs.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_autocast_is_finite(dtype):
    model, case = model_of(drop_rate=0.2), Case.random(3, 45, 5)
    with torch.autocast("cpu", dtype=dtype):
        loss = total(case.losses(model, model(*case.inputs())))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_a_copy_computes_the_same():
    model, case = model_of().eval(), Case.random(2, 20, 4)
    pairs = zip(model(*case.inputs()), copy.deepcopy(model)(*case.inputs()), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
@needs_compiler
def test_compiled_computes_the_same():
    model, case = model_of(), Case.random(2, 20, 4)
    # Tracing is what can go wrong here; generating code for the processor would only take longer.
    compiled = torch.compile(model, backend="eager")
    plain, got = model(*case.inputs()), compiled(*case.inputs())
    for a, b in zip(plain, got, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    total(case.losses(model, got)).backward()


def test_words_may_be_learned():
    model = EMB(small_config(), None)
    case = Case.random(2, 20, 4)
    total(case.losses(model, model(*case.inputs()))).backward()
    assert model.embedding_net.word_emb.word_emb.weight.grad.abs().sum() > 0


def test_unknown_words_and_padding():
    words = model_of().embedding_net.word_emb.eval()
    table = words(torch.tensor([[0, 1, 2, 51]]))[0]
    assert (table[0] == 0).all()
    assert torch.equal(table[1], words.unk_vec[0])
    assert torch.equal(table[2:], words.glove_vec[[0, -1]])


@pytest.mark.parametrize("hero", [False, True])
def test_vectors_of_words_in_place_of_their_ids(hero):
    model, case = model_of(), Case.random(3, 20, 4)
    words = model.embedding_net.word_emb.eval()(case.word_ids).detach()
    model = wrap_model(model).eval() if hero else model.eval()
    _, *others = case.inputs()
    for found, expected in zip(model(words, *others), model(*case.inputs()), strict=True):
        assert torch.equal(found, expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), clips=st.integers(1, 12))
def test_the_surrounding_maximum_is_that_of_a_loop(seed, clips):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, clips, 3, generator=draw, dtype=torch.float64)
    mask = torch.rand(2, clips, generator=draw) < 0.7
    before, after = surrounding_max(x, mask)
    for b in range(2):
        for t in range(clips):
            left = [x[b, s] for s in range(t) if mask[b, s] and mask[b, t]]
            right = [x[b, s] for s in range(t + 1, clips) if mask[b, s] and mask[b, t]]
            none = [torch.zeros(3, dtype=torch.float64)]
            assert torch.equal(before[b, t], torch.stack(left or none).amax(0))
            assert torch.equal(after[b, t], torch.stack(right or none).amax(0))


@pytest.mark.parametrize("windows", [(16,), (3,), (2, 4), (4, 4, 2)])
@pytest.mark.parametrize("clips", [1, 9, 64])
def test_a_proposal_is_the_maximum_of_its_cells(windows, clips):
    x = torch.randn(2, clips, 3) + 5
    mask = torch.ones(2, clips)
    features, bounds, valid, _ = ProposalMap(downscale=4, windows=windows).compact(x, mask)
    assert valid.any()
    for entry in valid[0].nonzero()[:, 0].tolist():
        first, last = bounds[0, entry].tolist()
        assert torch.equal(features[:, entry], x[:, first : last + 1].amax(1))


def test_the_lstm_is_that_of_packed_sequences():
    torch.manual_seed(0)
    rnn = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    x, lengths = torch.randn(4, 9, 6), torch.tensor([9, 1, 4, 7])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(rnn(packed)[0], batch_first=True)
    real = torch.arange(9) < lengths.unsqueeze(1)
    torch.testing.assert_close(bidirectional_lstm(rnn, x, lengths)[real], wanted[real], atol=1e-6, rtol=0)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_compiler)])
@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.999999])
def test_dropout_drops_its_share_and_keeps_the_mean(rate, compiled):
    torch.manual_seed(0)
    x = torch.ones(1001, 999, requires_grad=True)
    drop = torch.compile(Dropout(rate), backend="aot_eager", fullgraph=True) if compiled else Dropout(rate)
    dropped = drop(x)
    assert (dropped == 0).float().mean() == pytest.approx(rate, abs=2e-3)
    if rate <= 0.5:
        assert dropped.mean().item() == pytest.approx(1.0, abs=5e-3)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())
    # Neighbours share a draw; their fates must not.
    kept = (dropped != 0).float().flatten()
    together = (kept[:-1] * kept[1:]).mean()
    assert together == pytest.approx((1 - rate) ** 2, abs=3e-3)


def test_dropout_is_off_in_eval_and_at_zero():
    x = torch.randn(5, 7)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_the_threshold_falls_from_one_to_its_low():
    values = [elastic_threshold(epoch, 20, low=0.4) for epoch in range(20)]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(1.0, abs=1e-3) and 0.4 < values[-1] < 0.41
    with pytest.raises(ValueError, match=r"epoch must be in 0\.\.19, got 20"):
        elastic_threshold(20, 20)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 5}, "num_heads must divide dim, got dim=32 and num_heads=5"),
        ({"dim": 33, "num_heads": 3}, "dim must be even"),
        ({"drop_rate": 1.0}, "drop_rate"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"windows": ()}, "windows"),
        ({"min_iou": 0.8}, "min_iou must not exceed max_iou"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
    ],
)
def test_impossible_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        small_config(**fields)


def test_word_vectors_must_fit_the_config():
    with pytest.raises(ValueError, match="word_dim=20"):
        EMB(small_config(), np.zeros((50, 21), dtype=np.float32))
    with pytest.raises(ValueError, match="50 word vectors make 52, got 60"):
        EMB(small_config(word_size=60), word_vectors())
    with pytest.raises(ValueError, match="word_size must be set"):
        EMB(small_config(word_size=None), None)
    assert EMB(small_config(word_size=None), word_vectors()) is not None


def test_any_object_with_the_fields_is_a_config():
    class Parsed:
        pass

    parsed = Parsed()
    parsed.__dict__.update(vars(small_config()), gpu_idx="0", task="charades")
    assert EMBConfig.of(parsed) == small_config()
    EMB(parsed, word_vectors())


def test_inputs_that_do_not_fit_are_named():
    model, case = model_of(max_pos_len=32), Case.random(2, 20, 4)
    word_ids, char_ids, video, v_mask, q_mask = case.inputs()
    with pytest.raises(ValueError, match=r"a sequence of 33 is longer than max_pos_len=32"):
        model(word_ids, char_ids, torch.zeros(2, 33, 24), torch.ones(2, 33), q_mask)
    with pytest.raises(ValueError, match=r"v_mask must be \(B, T\)=\(2, 20\), got \(2, 19\)"):
        model(word_ids, char_ids, video, v_mask[:, :19], q_mask)
    with pytest.raises(ValueError, match=r"q_mask must be \(B, L\)=\(2, 4\), got \(2, 3\)"):
        model(word_ids, char_ids, video, v_mask, q_mask[:, :3])
    with pytest.raises(ValueError, match=r"video_features must be \(B, T, 24\), got \(2, 20, 23\)"):
        model(word_ids, char_ids, video[..., :23], v_mask, q_mask)
    with pytest.raises(ValueError, match="share the batch size, got 1 and 2"):
        model(word_ids[:1], char_ids, video, v_mask, q_mask[:1])
    with pytest.raises(ValueError, match=r"mask must be \(B, P\)=\(1, 4\)"):
        model.compute_ranking_loss(
            torch.zeros(1, 2), torch.zeros(1, 4, 2), torch.zeros(1, 4), torch.zeros(1, 9), 0.3, 0.7
        )


def test_a_folder_that_is_no_clone_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no clone of EMB"):
        load_upstream_emb(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16, torch.float16])
def test_clips_are_counted_exactly_in_any_precision(dtype):
    """bfloat16 has no odd numbers past 256, float16 none past 2048."""
    lengths = torch.tensor([0, 1, 255, 257, 301, 2047, 2049, 3001])
    mask = (torch.arange(3001) < lengths.unsqueeze(1)).to(dtype)
    assert torch.equal(count_real(mask), lengths)
