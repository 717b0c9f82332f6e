"""The README's Python, executed as printed."""

from __future__ import annotations

import re

import torch

from hero_plugin.adapters.emb import EMB, EMBConfig
from tests.resources import REPOSITORY


def test_the_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = EMBConfig(word_size=12, char_size=4, word_dim=8, video_feature_dim=6, dim=16, max_pos_len=32)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    for block in blocks:
        words, clips, ends = torch.randint(1, 12, (2, 5)), torch.randn(2, 16, 6), torch.tensor([3, 9])
        names = {"model": EMB(config, torch.randn(10, 8)), "words": words, "clips": clips, "ends": ends}
        code = block.replace(
            "model.compute_loss(...)", "model.compute_loss(*outputs[1:3], ends - 2, ends, *outputs[3:])"
        )
        code = code.replace("loss =", "outputs = model(words, None, clips, clips[..., 0] ** 0, words**0.0); loss =")
        exec(compile(code, "README.md", "exec"), names)
    assert blocks


def test_what_it_saves_is_the_plugin_alone(tmp_path, monkeypatch):
    test_the_code_runs(tmp_path, monkeypatch)
    weights = torch.load(tmp_path / "plugin.pt", weights_only=True)["hero"]
    assert weights
    assert all(name.startswith("hero.") for name in weights)
