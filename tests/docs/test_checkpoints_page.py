"""The page on checkpoints, executed as printed, and its table as the measurement has it."""

from __future__ import annotations

import re
import warnings

import pytest

from hero_plugin import HeroConfig
from tests.resources import REPOSITORY
from tests.weights.measure_start import CONFIGS

PAGE = (REPOSITORY / "docs" / "checkpoints.md").read_text("utf-8")


def test_the_code_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(compile(block, "docs/checkpoints.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "the base is MomentDETR here, QDDETR in the checkpoint" in printed
    assert "its hidden size is 128 here, 256 in the checkpoint" in printed
    assert names["config"] == HeroConfig()
    assert all(parameter.requires_grad for parameter in names["base"].parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_says_of_every_config_what_the_library_says(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    said = row.split("|")[6].strip()
    assert said.startswith("yes" if CONFIGS[name].starts_as_base else "no")
