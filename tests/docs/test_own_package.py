"""The package of the page on training a model of one's own: it installs, and every command serves it."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hero_plugin import adapter
from hero_plugin.integrations import cli
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training import bases
from tests.docs.pages import DOCS
from tests.training.files import write_files

PAGE = (DOCS / "guide" / "own_package.md").read_text("utf-8")


def write_package(folder: Path) -> Path:
    """Write the page's files as a folder that pip installs."""
    for name in ("pyproject.toml", "span_net/model.py", "span_net/training.py"):
        marker = f"**`{name}`**"
        block = re.search(r"```(?:python|toml)\n(.*?)```", PAGE[PAGE.index(marker) :], re.DOTALL)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block[1], "utf-8")
    (folder / "span_net" / "__init__.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package installed in it, as pip does."""
    pytest.importorskip("setuptools", reason="builds the package without a network")
    root = tmp_path_factory.mktemp("package")
    how = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    package = write_package(root / "span-net")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *how, "--target", str(root / "site"), str(package)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root / "site"


@pytest.mark.slow
def test_every_command_serves_a_base_of_another_package(installed, tmp_path, monkeypatch, capsys, request):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(installed)
    monkeypatch.chdir(tmp_path)
    for known in (adapter._installed_adapters, bases._installed):  # asked once a process, perhaps before this package
        known.cache_clear()
        request.addfinalizer(known.cache_clear)

    def hero_plugin(*words: object) -> str:
        assert cli.main([*map(str, words)]) == 0, capsys.readouterr()
        return capsys.readouterr().out

    files = write_files(tmp_path / "data")
    assert "train span_net" in hero_plugin("--help")
    assert "--dim INT" in hero_plugin("train", "span_net", "--help")
    plan = {
        "output": "runs",
        "seeds": [0],
        "settings": {**files.settings(epochs=2, hero={"levels": 2, "num_heads": 4}), "base": "span_net"},
        "variants": {"SpanNet": {"base_only": True}, "HERO-SpanNet": {}},
        "compare": {"HERO-SpanNet": "SpanNet"},
    }
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    said = hero_plugin("sweep", "--config", "sweep.json", "--jobs", 2, "--table", "sweep.tex", "--no-figures")
    assert "HERO-SpanNet minus SpanNet" in said
    assert "HERO-SpanNet minus SpanNet" in (tmp_path / "sweep.tex").read_text()
    run = tmp_path / "runs" / "hero-spannet-seed0"
    assert list((run / "figures").glob("*.png"))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2
    assert {"loss", "loss_bounds", "loss_relevance", "loss_consistency"} <= set(log[0]["losses"])
    assert log[1]["losses"]["loss"] < log[0]["losses"]["loss"]

    asked = ["--annotations", f"unseen={files.root / 'unseen.json'}", "--resamples", 100]
    assert "unseen, by drift" in hero_plugin("eval", "--run", run, *asked, "--bridge", "--predictions", "moments.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "moments.jsonl").read_text().splitlines()]
    assert all(0 <= answer["moment"][0] < answer["moment"][1] for answer in answers)
    table = hero_plugin("table", "HERO=moments.jsonl", *asked, "--format", "csv")
    assert table.splitlines()[1].startswith("unseen,all,12,6,HERO,")
    queries = [
        {"qid": number, "query": answer["sentence"], "vid": answer["video_id"], "duration": 20.0}
        for number, answer in enumerate(answers)
    ]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    hero_plugin("predict", "--run", run, "--queries", "queries.jsonl", "--output", "answers.jsonl")
    predicted = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [len(line["pred_relevant_windows"]) for line in predicted] == [5] * len(queries)
    with pytest.raises(SystemExit):  # tyro's own, with its hint
        cli.main(["train", "span_net", "--dimm", "3"])


def declare(monkeypatch, **values: str) -> None:
    """Let packages declare bases, by name."""
    found = [EntryPoint(name, value, "hero_plugin.bases") for name, value in values.items()]
    monkeypatch.setattr(bases, "declared_bases", lambda: found)
    monkeypatch.setattr(cli, "declared_bases", lambda: found)
    bases._installed.cache_clear()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "no_such_package.training:Base",
            "declared as no_such_package.training:Base, which cannot be loaded: No module",
        ),
        ("json:loads", "json:loads, which must be a Base, and is <function"),
        ("hero_plugin.integrations.training.emb:EmbBase", "but its config says base = 'emb'"),
    ],
)
def test_what_is_declared_wrongly_is_told(monkeypatch, capsys, value, said):
    declare(monkeypatch, other=value)
    assert "train other" in cli.usage()
    assert cli.main(["train", "other", "--help"]) == 2
    assert said in capsys.readouterr().err


POOLS = ("Pair(clips, query, video_mask,", "Pair(clips[:, ::2], query, video_mask[:, ::2],")
"""A change of the page's adapter: HERO meets every other clip."""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ('relevance=outputs["relevance"]', "relevance=None"),
            "SpanNet has no clip score .*relevance='pair'.*--hero.relevance pair",
        ),
        (POOLS, "give hero_loss an `inside` of its clips, and override its task's `relevance` and `clip_logits`"),
    ],
)
def test_a_model_whose_clips_are_not_scored_is_told_what_to_do(tmp_path, monkeypatch, capsys, change, said):
    package = write_package(tmp_path / "span-net")
    model, training = package / "span_net" / "model.py", package / "span_net" / "training.py"
    assert change[0] in model.read_text()
    model.write_text(model.read_text().replace(*change))
    # The page's own losses would be the first to meet another length.
    early = "self.run(model, batch)\n        self.hero_loss(model, batch)\n"
    training.write_text(training.read_text().replace("self.run(model, batch)\n", early, 1))
    monkeypatch.syspath_prepend(package)
    declare(monkeypatch, span_net="span_net.training:SpanNetBase")
    for name in ("span_net", "span_net.model", "span_net.training"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(adapter, "_registered", [importlib.import_module("span_net.model").SpanNetAdapter])
    settings = write_files(tmp_path / "data").settings_file(hero={"levels": 2, "num_heads": 4})
    assert cli.main(["train", "span_net", "--config", str(settings), "--output", str(tmp_path / "run")]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_base_that_nobody_declares_is_told(monkeypatch):
    declare(monkeypatch, other="a:b")
    with pytest.raises(UserError, match="base must be one of emb, moment_detr, qd_detr, tr_detr, other, got 'othr'"):
        bases.config_from({"base": "othr"}, "test")
