"""A plug-in's checkpoint: it carries its config and its base's fingerprint, and says what differs elsewhere."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hero_plugin import HeroConfig, PluginError, load_plugin, read_plugin, save_plugin, unwrap_model, wrap_model
from hero_plugin.plugin import Fingerprint
from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, shake, tensors, tuple_base

CASES = {
    "tuple": (tuple_base, inputs),
    "dict": (dict_base, inputs),
    "emb": (emb.emb, emb.batch),
    "qd_detr": (detr.qd_detr, detr.batch),
}
NAMES = ["plugin.pt", "plugin.safetensors"]


@pytest.fixture(params=NAMES)
def file(request, tmp_path):
    if request.param.endswith(".safetensors"):
        pytest.importorskip("safetensors")
    return tmp_path / "deeper" / request.param


@torch.no_grad()
def equal_outputs(one, other, batch):
    pairs = zip(tensors(one.eval()(*batch)), tensors(other.eval()(*batch)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("config", [HeroConfig(levels=2), HeroConfig.paper(relevance="pair"), HeroConfig.off()])
@pytest.mark.parametrize("name", CASES)
def test_a_bare_base_is_wrapped_as_the_plugin_was(name, config, file):
    build, make = CASES[name]
    model = shake(wrap_model(build(), config=config), 0.1)
    save_plugin(model, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # torch 2.1 of itself
        other = load_plugin(copy.deepcopy(model.base), file)
    assert other.config == config
    assert equal_outputs(model, other, make())


def test_a_wrapped_model_gets_the_weights_and_stays_itself(file):
    model = shake(wrap_model(emb.emb()), 0.1)
    save_plugin(model, file)
    other = wrap_model(copy.deepcopy(model.base), dropout=0.5, mask_ratio=0.6)  # only training reads these
    assert load_plugin(nn.DataParallel(other), file) is other
    assert other.config.dropout == 0.5
    assert equal_outputs(model, other.cpu(), emb.batch())  # DataParallel takes it to the GPU where there is one


def test_what_the_file_is(tmp_path):
    model = wrap_model(emb.emb(), levels=2)
    save_plugin(model, tmp_path / "plugin.pt")
    plain = torch.load(tmp_path / "plugin.pt", weights_only=True)
    assert list(plain) == ["hero", "config", "base", "version"]
    assert set(plain["hero"]) == set(model.hero_state_dict())
    assert plain["config"]["levels"] == 2 and plain["base"]["class"] == "EMB" and plain["base"]["dim"] == 16
    assert [path.name for path in tmp_path.iterdir()] == ["plugin.pt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    model, path = wrap_model(emb.emb()), tmp_path / "plugin.pt"
    save_plugin(model, path)
    before = path.read_bytes()

    def full(content, where):
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full"):
        save_plugin(model, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (lambda: emb.emb(dim=16), lambda: emb.emb(dim=24), ["hidden size is 24 here, 16 in the checkpoint"]),
        (detr.qd_detr, detr.moment_detr, ["is MomentDETR here, QDDETR in the checkpoint", "only in the checkpoint: "]),
        (detr.moment_detr, detr.qd_detr, ["is QDDETR here", "only here: ", "pass strict=False"]),
    ],
)
def test_another_base_is_refused_with_what_differs(there, here, said, levels, tmp_path):
    save_plugin(wrap_model(there(), levels=levels), tmp_path / "plugin.pt")
    for model in (here(), wrap_model(here(), levels=levels)):
        before = {name: id(value) for name, value in model.named_parameters()}
        with pytest.raises(PluginError) as error:
            load_plugin(model, tmp_path / "plugin.pt")
        assert all(part in str(error.value) for part in [*said, "was trained on another base", "plugin.pt"])
        assert len(str(error.value).splitlines()) < 12
        assert {name: id(value) for name, value in model.named_parameters()} == before


class Renamed(type(detr.qd_detr())):
    """A fork of QD-DETR under its own name: its adapter serves it as it serves QD-DETR."""


@pytest.mark.parametrize("name", NAMES)
def test_a_base_of_other_weights_is_a_warning_and_one_in_half_precision_is_not(name, tmp_path):
    pytest.importorskip("safetensors")
    base = shake(detr.qd_detr())
    save_plugin(wrap_model(base), tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_plugin(copy.deepcopy(base).bfloat16().float(), tmp_path / name)
    learned = copy.deepcopy(base)
    with torch.no_grad():
        learned.class_embed.weight.mul_(1.5)
    with pytest.warns(UserWarning, match=r"other weights .* in 1 of \d+ tensors\. The plug-in is loaded, but fits"):
        load_plugin(learned, tmp_path / name)


def test_a_subclass_is_the_same_base(tmp_path):
    fork = detr.qd_detr()
    save_plugin(wrap_model(copy.deepcopy(fork)), tmp_path / "plugin.pt")
    fork.__class__ = Renamed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_plugin(fork, tmp_path / "plugin.pt")


def test_a_base_of_another_class_can_be_insisted_on(tmp_path):
    model = shake(wrap_model(detr.moment_detr()), 0.1)
    save_plugin(model, tmp_path / "plugin.pt")
    with pytest.warns(UserWarning, match="the base is QDDETR here, MomentDETR in the checkpoint"):
        other = load_plugin(detr.qd_detr(), tmp_path / "plugin.pt", strict=False)
    assert torch.equal(other.hero.sgvf.strength, model.hero.sgvf.strength)
    with pytest.raises(PluginError, match="hidden size") as error:
        load_plugin(detr.moment_detr(hidden_dim=32), tmp_path / "plugin.pt", strict=False)
    assert "strict" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"video_feature_dim": 9}, r"video_affine.linear.conv1d.weight is \(16, 9, 1\) here, \(16, 6, 1\) in the"),
        ({"char_size": 7}, r"char_emb.weight is \(7, 4\) here, \(5, 4\) in the checkpoint"),
        ({"num_layers": 2}, "only here: "),
    ],
)
def test_what_the_plugin_does_not_depend_on_is_a_warning(changes, said, tmp_path):
    save_plugin(wrap_model(emb.emb()), tmp_path / "plugin.pt")
    with pytest.warns(UserWarning, match=said):
        load_plugin(emb.emb(**changes), tmp_path / "plugin.pt")


def test_another_vocabulary_and_another_type_are_warnings(tmp_path):
    save_plugin(wrap_model(emb.emb()), tmp_path / "plugin.pt")
    larger = type(emb.emb())(emb.config(word_size=22), torch.randn(20, 10))
    with pytest.warns(UserWarning, match=r"glove_vec is \(20, 10\) here, \(12, 10\) in the checkpoint"):
        load_plugin(larger, tmp_path / "plugin.pt")
    with pytest.warns(UserWarning, match="are of another type: .* is float64 here, float32 in the checkpoint"):
        assert load_plugin(emb.emb().double(), tmp_path / "plugin.pt").hero.sgvf.strength.dtype == torch.float64


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (HeroConfig(levels=2), "levels is 2 here, 4 in the checkpoint"),
        (HeroConfig(gate="sigmoid"), "gate is 'sigmoid' here, 'residual' in the checkpoint"),
        (HeroConfig(num_heads=4), "num_heads is 4 here, 8 in the checkpoint"),  # no shape shows it
        (HeroConfig(positions=False), "positions is False here, True in the checkpoint"),
        (HeroConfig(sgvf=False), "gate is 'absent' here"),
    ],
)
def test_another_config_is_refused_with_the_fields(config, said, tmp_path):
    save_plugin(wrap_model(tuple_base()), tmp_path / "plugin.pt")
    with pytest.raises(PluginError, match=said) as error:
        load_plugin(wrap_model(tuple_base(), config=config), tmp_path / "plugin.pt")
    assert "load_plugin(unwrap_model(model), path)" in str(error.value)


def test_fields_of_absent_parts_do_not_matter(tmp_path):
    save_plugin(wrap_model(tuple_base(), levels=1, num_heads=2), tmp_path / "plugin.pt")
    load_plugin(wrap_model(tuple_base(), levels=1, feedforward=64), tmp_path / "plugin.pt")
    save_plugin(wrap_model(tuple_base()), tmp_path / "plugin.pt")
    load_plugin(wrap_model(tuple_base(), feedforward=64), tmp_path / "plugin.pt")  # 4 times the hidden size, as None is


def rewritten(path, **changes):
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    return path


def test_a_later_version_is_told_by_its_fields(tmp_path):
    path = tmp_path / "plugin.pt"
    save_plugin(wrap_model(tuple_base()), path)
    config = HeroConfig().to_dict()
    rewritten(path, version="9.1", config={**config, "fusion": "late"})
    with pytest.raises(PluginError, match=r"written by hero-plugin 9\.1, this is .*no 'fusion' here.*--upgrade"):
        read_plugin(path)
    rewritten(path, config={name: value for name, value in config.items() if name != "positions"})
    assert read_plugin(path).config == HeroConfig()
    rewritten(path, base={"class": "EMB"})
    with pytest.raises(PluginError, match="not the fingerprint of a base"):
        read_plugin(path)


def test_what_is_no_plugin_says_what_to_do(tmp_path):
    model, path = wrap_model(emb.emb()), tmp_path / "file.pt"
    with pytest.raises(PluginError, match="no such file"):
        load_plugin(model, path)
    torch.save(model.state_dict(), path)
    with pytest.raises(PluginError, match=r"hero, config, base, version are missing.*weights extract"):
        load_plugin(model, path)
    path.write_text("hello")
    with pytest.raises(PluginError, match="not a plug-in's checkpoint that can be read safely"):
        load_plugin(model, path)


def test_weights_of_a_training_that_diverged_are_refused(file):
    model = wrap_model(tuple_base())
    with torch.no_grad():
        model.hero.sgvf.strength[0, 0, 0, 1] = torch.nan
    save_plugin(model, file)
    with pytest.raises(PluginError, match=r"hero\.sgvf\.strength: not finite; a training that diverged wrote this"):
        load_plugin(tuple_base(), file)


def test_loading_leaves_the_base_alone(tmp_path):
    model = wrap_model(emb.emb())
    save_plugin(torch.compile(model, backend="eager"), tmp_path / "plugin.pt")
    base = emb.emb()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    assert unwrap_model(load_plugin(base, tmp_path / "plugin.pt")) is base
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


names = st.text("abc.", min_size=1, max_size=6)
shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
forms = st.dictionaries(names, st.tuples(shapes, st.sampled_from(["float32", "float16"])), max_size=8)


@settings(max_examples=60, deadline=None)
@given(forms, forms)
def test_fingerprints_differ_exactly_where_their_digests_do(one, other):
    a, b = Fingerprint("EMB", 16, one), Fingerprint("EMB", 16, other)
    assert (a.digest == b.digest) is (a.differences(b) == []) is (one == other)
    assert Fingerprint.from_dict(a.to_dict()) == a
    assert len(a.differences(b)) <= 7


@pytest.mark.parametrize("here", [True, False])
def test_calibrated_scores_are_told_where_scores_rank(here, tmp_path):
    save_plugin(wrap_model(detr.qd_detr(), calibrate=not here), tmp_path / "plugin.pt")
    with pytest.raises(PluginError, match=f"calibrate is {here} here, {not here} in the checkpoint"):
        load_plugin(wrap_model(detr.qd_detr(), calibrate=here), tmp_path / "plugin.pt")
    whole = wrap_model(detr.qd_detr(), calibrate=not here).state_dict()
    with pytest.raises(RuntimeError, match=f"wrap_model\\(base, calibrate={not here}\\)"):
        wrap_model(detr.qd_detr(), calibrate=here).load_state_dict(whole)
    save_plugin(wrap_model(emb.emb(), calibrate=not here), tmp_path / "emb.pt")
    load_plugin(wrap_model(emb.emb(), calibrate=here), tmp_path / "emb.pt")  # EMB's score is a logit as it is


@pytest.mark.parametrize("around", [nn.DataParallel, lambda base: torch.compile(base, backend="eager")])
def test_a_parallel_or_compiled_base_is_refused(around, tmp_path):
    save_plugin(wrap_model(tuple_base()), tmp_path / "plugin.pt")
    with pytest.raises(TypeError, match="wrap the model itself, then"):
        load_plugin(around(tuple_base()), tmp_path / "plugin.pt")


def test_a_base_with_a_lazy_layer_takes_a_plugin(tmp_path):
    base = tuple_base()
    save_plugin(wrap_model(base), tmp_path / "plugin.pt")
    base.late = nn.LazyLinear(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are only here
        load_plugin(base, tmp_path / "plugin.pt")
