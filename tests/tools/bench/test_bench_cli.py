"""``hero-plugin bench`` from the command line to its files."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from hero_plugin.integrations.cli import main as hero_plugin
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import parse
from hero_plugin.integrations.tools.bench import cli as bench
from hero_plugin.integrations.tools.bench.cli import BenchConfig, command_of
from hero_plugin.integrations.tools.bench.models import ModelName
from hero_plugin.integrations.tools.bench.report import COLORS, Report, marks
from hero_plugin.integrations.training.bases import BASES
from tests.old_torch import counts_flops
from tests.resources import upstream

pytestmark = counts_flops

WIDE = ["--batch", "2", "--clips", "16", "--words", "4", "--device", "cpu"]
TINY = [*WIDE, "--dim", "16"]
PNG = b"\x89PNG"


def main(argv):
    """As the command runs, but for what becomes of a mistake."""
    bench.main(parse(BenchConfig, "bench", argv), argv)
    return 0


@pytest.fixture
def page(tmp_path):
    parts = ["\n".join(marks(name)) for name in ("cpu", "cuda", "targets")]
    path = tmp_path / "page.md"
    path.write_text("before\n" + "\nbetween\n".join(parts) + "\nafter\n")
    return path


def test_every_model_has_a_colour():
    assert set(COLORS) == set(get_args(ModelName)) and len(set(COLORS.values())) == len(COLORS)


@pytest.mark.slow
def test_measures_prints_and_writes(tmp_path, page, capsys):
    files = {name: tmp_path / f"bench.{name}" for name in ("json", "figure")}
    flags = ["--bases", "emb", "--steps", "2", "--warmup", "0", "--levels", "1", "2", "--models", "plain", "hero"]
    paths = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert hero_plugin(["bench", *flags, *TINY, *paths, "--markdown", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "EMB, training step, CPU, fp32, B=2 T=16 L=4 D=16" in printed and "HERO, 1 level " in printed
    report = Report.read(files["json"])
    assert [str(each.model) for each in report.measurements] == 2 * ["plain base", "HERO, 1 level", "HERO, 2 levels"]
    assert [each.setting.mode for each in report.measurements] == 3 * ["train"] + 3 * ["inference"]
    plain, one, two = report.measurements[:3]
    assert plain.parameters < one.parameters < two.parameters and plain.flops < one.flops < two.flops
    assert plain.memory < one.memory < two.memory and plain.operators < one.operators < two.operators
    assert all(len(each.seconds) == 2 for each in report.measurements)
    assert files["figure"].read_bytes().startswith(PNG)
    text = page.read_text()
    assert text.startswith("before\n") and text.count("\nbetween\n") == 2 and text.endswith("\nafter\n")
    assert f"| HERO, 2 levels | {two.parameters / 1e6:.3f} |" in text and str(tmp_path) not in text

    # What was measured before can be shown again, with the targets.
    assert main(["--read", str(files["json"]), "--targets", "--markdown", str(page)]) == 0
    assert "inference: HERO, one of 4 levels / plain base" in capsys.readouterr().out
    renewed = page.read_text()
    assert renewed.startswith(text[: text.index("<!-- bench targets")]) and "| d | EMB | CPU |" in renewed
    assert report.command.startswith("hero-plugin bench --bases emb")


@pytest.mark.slow
def test_targets_without_a_clock(capsys):
    assert main(["--bases", "moment_detr", "--targets", "--steps", "0", *TINY]) == 0
    printed = capsys.readouterr().out
    assert "HERO checkpoint" in printed and "not timed" in printed
    assert any("peak memory: HERO, 4 levels / plain base" in line and "met" in line for line in printed.splitlines())


@pytest.mark.slow
@pytest.mark.upstream
@pytest.mark.parametrize("base", BASES)
def test_upstreams_own_classes(tmp_path, base):
    file = tmp_path / "bench.json"
    sizes = TINY if base == "emb" else WIDE  # theirs has one width
    flags = ["--models", "plain", "upstream", "upstream-hero", "--levels", "2", "--steps", "1", "--warmup", "0"]
    upstream_folder = str(upstream(BASES[base].clone[0]).parent)
    assert main(["--bases", base, *flags, *sizes, "--upstream", upstream_folder, "--json", str(file)]) == 0
    plain, theirs, hero = Report.read(file).measurements[:3]
    assert plain.parameters == theirs.parameters < hero.parameters
    assert plain.flops <= theirs.flops < hero.flops and min(hero.seconds) > 0
    assert upstream_folder not in json.loads(file.read_text())["command"]


@pytest.mark.slow
def test_half_precision(tmp_path):
    file = tmp_path / "bench.json"
    flags = ["--models", "plain", "hero", "--dtype", "bf16", "--steps", "1", "--warmup", "0", "--mode", "train"]
    assert main(["--bases", "emb", *flags, *TINY, "--json", str(file)]) == 0
    assert {each.setting.dtype for each in Report.read(file).measurements} == {"bf16"}


def test_mistakes_are_told_before_the_measurement(tmp_path):
    for wrong, message in (
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"levels": (4, 0)}, "levels must be at least 1, got 0"),
        ({"models": ("upstream",)}, "needs --upstream"),
        ({"json": tmp_path / "missing" / "bench.json"}, "create it first"),
        ({"markdown": tmp_path / "page.md"}, "no page"),
        ({"read": (tmp_path / "one.json",), "json": tmp_path / "two.json"}, "--read measures nothing"),
    ):
        with pytest.raises(UserError, match=message):
            BenchConfig(**wrong)
    with pytest.raises(UserError, match="--clips must be at least 1, got 0"):
        main(["--clips", "0"])
    with pytest.raises(UserError, match="num_heads must divide dim"):
        main(["--bases", "emb", "--dim", "9"])
    with pytest.raises(FileNotFoundError, match="is no clone of EMB"):
        main(["--bases", "emb", "--upstream", str(tmp_path), *TINY])
    with pytest.raises(UserError, match="must be 256 for upstream's QD-DETR"):
        main(["--bases", "qd_detr", "--upstream", str(tmp_path), *TINY])


def test_files_that_are_none_of_ours(tmp_path):
    other, page = tmp_path / "other.json", tmp_path / "page.md"
    other.write_text('{"measurements": [{}]}')
    with pytest.raises(UserError) as told:
        main(["--read", str(other)])
    assert str(told.value) == f"{other}: holds no measurements of hero-plugin bench --json"
    with pytest.raises(UserError, match=r"absent\.json: cannot be read \(No such file"):
        main(["--read", str(tmp_path / "absent.json")])
    page.write_text("no place\n")
    other.write_text('{"command": "", "conditions": "", "measurements": []}')
    with pytest.raises(UserError, match="no place to write into; add the two lines <!-- bench"):
        main(["--read", str(other), "--markdown", str(page)])
    with pytest.raises(UserError, match=r"bars\.png: nothing to draw, as nothing was measured"):
        main(["--read", str(other), "--figure", str(tmp_path / "bars.png")])


def test_the_evaluation_needs_a_clone_of_moment_detr(tmp_path, capsys):
    assert hero_plugin(["bench", "eval", "--upstream", str(tmp_path)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"--upstream {tmp_path}: no clone of moment_detr, as standalone_eval/eval.py is not there" in told


def test_a_command_names_no_place():
    argv = ["--bases", "emb", "--json", "/somewhere/x.json", "--upstream=/clones", "--figure=f.png", "--steps", "2"]
    assert command_of(argv) == "hero-plugin bench --bases emb --upstream FOLDER_OF_CLONES --steps 2"
