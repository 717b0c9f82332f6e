"""The page on editing a repository by hand: its snippets run, and the edits train HERO in the real clones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.core import emb
from tests.docs.pages import DOCS
from tests.tools.launch.layouts import (
    EMB_COMMAND,
    checkout,
    detr_command,
    launch,
    lighthouse_command,
)

PAGE = (DOCS / "guide" / "by_hand.md").read_text("utf-8")
EDIT = re.compile(r"<!-- edit (\S+): (.*?) -->\n```python\n(.*?)```", re.DOTALL)
DETRS = {"moment_detr": "Moment-DETR", "qd_detr": "QD-DETR", "tr_detr": "TR-DETR"}
TITLES = {**dict.fromkeys(DETRS, ", ".join(DETRS.values())), "lighthouse": "Lighthouse", "emb": "EMB"}


def section(name: str) -> str:
    """Return the part of the page about a repository."""
    _, _, rest = PAGE.partition(f"\n## {TITLES[name]}\n")
    assert rest
    return rest.partition("\n## ")[0].replace("NAME/", f"{name}/")


def snippets(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", section(name), re.DOTALL)


@pytest.mark.parametrize("name", [*DETRS, "lighthouse"])
def test_the_edit_of_a_detr(name):
    from hero_plugin.adapters.detr.config import QDDETRConfig
    from hero_plugin.adapters.qd_detr import build_qd_detr

    model, criterion = build_qd_detr(QDDETRConfig(text_dim=5, video_dim=6, hidden_dim=16, nheads=4))
    names = {"model": model, "criterion": criterion, "calculate_taskweave_losses": lambda losses, weights, *rest: 0.0}
    for code in snippets(name):
        exec(compile(code, name, "exec"), names)
    assert names["model"].base is model and names["criterion"].criterion is criterion
    assert {"loss_relevance", "loss_consistency"} <= set(criterion.weight_dict)
    if name == "lighthouse":
        losses = {name: torch.tensor(2.0) for name in ("loss_relevance", "loss_consistency")}
        total = names["calculate_taskweave_losses"](losses, criterion.weight_dict, None, None)
        assert float(total) == pytest.approx(0.4)


def test_the_edit_of_emb():
    base = emb.emb()
    names = {"model": base}
    for code in snippets("emb"):
        exec(compile(code, "emb", "exec"), names)
    assert names["model"].base is base and names["losses"] == {}


def edited(repository: Path, name: str) -> None:
    """Make the page's edits in a copy of the clone."""
    edits = EDIT.findall(section(name))
    assert edits
    for path, line, code in edits:
        lines = (repository / path).read_text().splitlines()
        places = [place for place, each in enumerate(lines) if each.strip() == line]
        assert places, f"{path} has no line {line!r}"
        for place in reversed(places):
            indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
            lines[place + 1 : place + 1] = [indent + each for each in code.splitlines()]
        (repository / path).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["emb", "moment_detr", "qd_detr", "tr_detr", "lighthouse"])
def test_the_edited_repository_trains_hero(name, tmp_path):
    repository = checkout(name, tmp_path)
    edited(repository, name)
    if name == "emb":
        command, logs = [*EMB_COMMAND, "--dim", "32"], "sessions/charades/tiny/log"
    elif name == "lighthouse":
        command, logs = lighthouse_command("moment_detr"), "results/*/*/*/train.log"
    else:
        command, logs = detr_command(name), "results/*/train.log.txt"
    done = launch(repository, "--without-hero", command=command)
    assert done.returncode == 0, done.stderr[-4000:]
    (log,) = repository.glob(logs)
    if name == "emb":
        saved = torch.load(log.parent / "model_best.pth.tar", weights_only=True)["state_dict"]
        assert any(parameter.startswith("hero.") for parameter in saved)
    else:
        assert "loss_relevance" in log.read_text() and "loss_consistency" in log.read_text()
