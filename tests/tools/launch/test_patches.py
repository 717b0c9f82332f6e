"""Patches reach a module before anybody copies from it, and leave no trace."""

from __future__ import annotations

import importlib
import sys

import pytest

from hero_plugin.integrations.tools.launch.run import Patch, patched


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose module ``user`` takes a name from ``maker`` as it is imported."""
    (tmp_path / "patches_sample").mkdir()
    (tmp_path / "patches_sample" / "__init__.py").write_text("")
    (tmp_path / "patches_sample" / "maker.py").write_text(
        "def make():\n    return 'made'\n\nclass Base:\n    def inherited(self):\n        return 'base'\n\n"
        "class Maker(Base):\n    def make(self):\n        return 'made'\n"
    )
    (tmp_path / "patches_sample" / "user.py").write_text("from patches_sample.maker import make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "patches_sample"
    for name in [name for name in sys.modules if name.startswith("patches_sample")]:
        del sys.modules[name]


def louder(function):
    return lambda *args: function(*args).upper()


def test_whoever_imports_a_name_gets_the_patched_one(package):
    with patched([Patch(f"{package}.maker", "make", louder, "")]):
        assert importlib.import_module(f"{package}.user").make() == "MADE"


def test_a_module_that_is_there_already_is_patched_and_put_back(package):
    maker = importlib.import_module(f"{package}.maker")
    with patched([Patch(f"{package}.maker", "make", louder, "")]):
        assert maker.make() == "MADE"
    assert maker.make() == "made"


@pytest.mark.parametrize("method", ["make", "inherited"])
def test_methods(package, method):
    maker = importlib.import_module(f"{package}.maker")
    before = dict(vars(maker.Maker))
    with patched([Patch(f"{package}.maker", f"Maker.{method}", louder, "")]):
        assert getattr(maker.Maker(), method)().isupper()
        assert maker.Base().inherited() == "base"
    assert dict(vars(maker.Maker)) == before


def test_two_patches_of_one_name_are_undone_in_order(package):
    maker = importlib.import_module(f"{package}.maker")
    twice = [
        Patch(f"{package}.maker", "make", louder, ""),
        Patch(f"{package}.maker", "make", lambda f: lambda: f() * 2, ""),
    ]
    with patched(twice):
        assert maker.make() == "MADEMADE"
    assert maker.make() == "made"


def test_what_a_module_lacks_is_left_alone(package):
    with patched([Patch(f"{package}.maker", "other", louder, ""), Patch(f"{package}.absent", "make", louder, "")]):
        assert not hasattr(importlib.import_module(f"{package}.maker"), "other")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"{package}.absent")


def test_nothing_is_left_on_the_import_path(package):
    before = list(sys.meta_path)
    with patched([Patch(f"{package}.maker", "make", louder, "")]):
        pass
    assert sys.meta_path == before
