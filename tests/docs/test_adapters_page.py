"""The page on adapters, executed as printed: both ways to bring a base HERO has never met."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from hero_plugin import adapter, wrap_model
from tests.resources import REPOSITORY


@pytest.fixture
def page(monkeypatch):
    """What the page's Python defines; its registration is undone afterwards."""
    monkeypatch.setattr(adapter, "_registered", [])
    text = (REPOSITORY / "docs" / "adapters.md").read_text()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "docs/adapters.md", "exec"), names)
    return names


def test_two_stage_trains(page):
    missing = [name for name, parameter in page["model"].named_parameters() if parameter.grad is None]
    assert missing == []
    assert page["outputs"]["start"].shape == (2, 64)


class MyModel(nn.Module):
    """The kind of model that the page's adapter is for."""

    def __init__(self):
        super().__init__()
        self.video_projection, self.query_projection = nn.Linear(20, 16), nn.Linear(30, 16)
        self.score, self.spans = nn.Linear(16, 1), nn.Linear(16, 2)

    def forward(self, video, video_mask, query, query_mask):
        words = self.query_projection(query).mean(1, keepdim=True)
        fused = torch.relu(self.video_projection(video) + words)
        score = self.score(fused).squeeze(-1)
        return {"score": score, "spans": self.spans(fused.mean(1)).sigmoid(), "video_mask": video_mask}


def test_an_adapter_of_ones_own(page):
    model = wrap_model(MyModel(), levels=2)
    assert isinstance(model.grounder, page["MyModelAdapter"])
    outputs = model(torch.randn(3, 9, 20), torch.ones(3, 9), torch.randn(3, 5, 30), torch.ones(3, 5))
    assert outputs["score"].shape == (3, 9)
    assert set(outputs) == {"score", "spans", "video_mask", "hero"}
    assert ((outputs["spans"] > 0) & (outputs["spans"] < 1)).all()
