"""What tests of data compare with."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from tests.resources import upstream


@pytest.fixture
def emb_data_util(monkeypatch):
    """EMB's own module of data functions, from its clone."""
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=iter))  # it only draws a bar there
    spec = importlib.util.spec_from_file_location("upstream_module", upstream("EMB") / "util" / "data_util.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
