"""Folders of ``save_pretrained``, and what ``from_pretrained`` makes of them, here and from the hub's cache."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch

from hero_plugin import Bridge, PluginError, from_pretrained, wrap_model
from hero_plugin.adapters.qd_detr import QDDETRAdapter
from hero_plugin.plugin import files_of
from tests.core import detr
from tests.core.bases import dict_base, inputs, shake
from tests.core.test_named_plugins import answer, same

needs_hub = pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is missing")


def trained(**choices):
    torch.manual_seed(0)
    return shake(wrap_model(dict_base(), levels=2, stride=1, **choices))


@pytest.fixture(params=["safetensors", "pt"])
def suffix(request, monkeypatch):
    if request.param == "safetensors":
        pytest.importorskip("safetensors")
    else:
        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "safetensors" else found(name))
    return request.param


def test_with_a_base_that_learns(tmp_path, suffix):
    model, batch = trained(), inputs()
    model.save_pretrained(tmp_path / "hero")
    assert {path.name for path in (tmp_path / "hero").iterdir()} == {f"plugin.{suffix}", f"base.{suffix}", "README.md"}
    assert len({path.stat().st_mode for path in (tmp_path / "hero").iterdir()}) == 1  # as readable as other files
    torch.manual_seed(5)
    other = from_pretrained(dict_base(), tmp_path / "hero")
    assert same(answer(other, batch), answer(model, batch)) and other.config == model.config
    base = dict_base()
    kept = copy.deepcopy(base.state_dict())
    other = from_pretrained(base, str(tmp_path / "hero"), load_base=False, name="mine")
    assert all(torch.equal(value, kept[name]) for name, value in other.base.state_dict().items())
    assert other.active_plugin == "mine"


def test_with_a_frozen_base(tmp_path):
    model = trained(freeze_base=True)
    model.save_pretrained(tmp_path)
    assert not files_of(tmp_path, "base")
    assert "give it those that the plug-in was trained with" in (tmp_path / "README.md").read_text()
    batch = inputs()
    assert same(answer(from_pretrained(copy.deepcopy(model.base), tmp_path), batch), answer(model, batch))


def test_the_card(tmp_path):
    model = trained()
    model.save_pretrained(tmp_path, card={"Figures": "R1 is 12.3."})
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: hero-plugin\n") and "# HERO on TwoStage" in card
    assert '"levels": 2' in card and "## Figures\n\nR1 is 12.3.\n" in card and f"torch {torch.__version__}" in card
    (code,) = (part.partition("```")[0] for part in card.split("```python\n")[1:])
    names, batch = {"base": dict_base()}, inputs()
    exec(code.replace("THIS_FOLDER_OR_ITS_ID", tmp_path.as_posix()), names)
    assert same(answer(names["model"], batch), answer(model, batch))


class OfFork(QDDETRAdapter):
    """An adapter that is not registered."""


def test_the_card_names_an_adapter_that_loading_takes(tmp_path):
    wrap_model(detr.qd_detr()).save_pretrained(tmp_path / "known")
    wrap_model(detr.qd_detr(), adapter=OfFork).save_pretrained(tmp_path / "own")
    assert '_ID")' in (tmp_path / "known" / "README.md").read_text()
    assert '_ID", adapter=OfFork)' in (tmp_path / "own" / "README.md").read_text()


def test_nothing_is_replaced_unasked(tmp_path):
    model = trained()
    model.save_pretrained(tmp_path)
    with pytest.raises(PluginError, match=r"holds plugin\.\w+, base\.\w+, README.md already: pass overwrite=True"):
        model.save_pretrained(tmp_path)
    shake(model)
    model.save_pretrained(tmp_path, with_base=False, overwrite=True)
    assert not files_of(tmp_path, "base")  # that of the earlier model
    assert len(files_of(tmp_path, "plugin")) == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "README.md").write_text("mine")
    with pytest.raises(PluginError, match=r"holds README.md already"):
        model.save_pretrained(other)
    assert (other / "README.md").read_text() == "mine" and len(list(other.iterdir())) == 1


def test_a_base_under_another_plugin_is_not_replaced_unasked(tmp_path):
    trained().save_pretrained(tmp_path)
    model = trained()
    shake(model.base)
    with pytest.raises(PluginError, match="would replace those that the model's plug-ins stand on"):
        from_pretrained(model, tmp_path, name="second")
    assert list(model.plugins) == ["default"]
    before = copy.deepcopy(model.base.state_dict())
    from_pretrained(model, tmp_path, name="second", load_base=False)
    assert list(model.plugins) == ["default", "second"]
    assert all(torch.equal(value, before[name]) for name, value in model.base.state_dict().items())


def test_weights_of_another_base_change_nothing(tmp_path):
    trained().save_pretrained(tmp_path / "hero")
    base = dict_base()
    base.more = torch.nn.Linear(2, 2)
    with pytest.raises(PluginError, match=r"its weights of the base do not fit: more\.weight, more\.bias differ"):
        from_pretrained(base, tmp_path / "hero")
    with pytest.raises(PluginError, match="was trained on another base"):
        from_pretrained(detr.qd_detr(), tmp_path / "hero", load_base=False)


def test_what_is_no_folder_is_told(tmp_path, monkeypatch):
    with pytest.raises(PluginError, match=r"no plugin.safetensors or plugin.pt in it; save_pretrained writes one"):
        from_pretrained(dict_base(), tmp_path)
    with pytest.raises(PluginError, match=r"/no/such/folder: no such folder; model\.save_pretrained"):
        from_pretrained(dict_base(), "/no/such/folder")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else found(name))
    with pytest.raises(PluginError, match=r"someone/hero: no such folder here\. .* 'hero-plugin\[hub\]'"):
        from_pretrained(dict_base(), "someone/hero")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The hub's cache in a folder of its own, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@needs_hub
def test_an_id_of_the_hub(offline):
    model, batch = trained(), inputs()
    commit = "0" * 40
    repository = offline / "models--someone--hero"
    model.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    assert same(answer(from_pretrained(dict_base(), "someone/hero"), batch), answer(model, batch))
    with pytest.raises(PluginError, match=r"someone/other: no such folder here, and the hub does not give it: \w+"):
        from_pretrained(dict_base(), "someone/other")


def test_what_is_no_tensor_cannot_be_kept(tmp_path):
    base = dict_base()
    base.bridge = Bridge(torch.eye(3))  # whose choices are extra state
    with pytest.raises(PluginError, match=r"bridge\._extra_state: not tensors.*with_base=False"):
        wrap_model(base).save_pretrained(tmp_path / "hero")
    wrap_model(base).save_pretrained(tmp_path / "hero", with_base=False)
