"""The command line: help at once, one clear message for a mistake, statuses that scripts can read."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path

import pytest

import hero_plugin
from hero_plugin import HeroConfig
from hero_plugin.integrations import cli
from hero_plugin.integrations.support.errors import DataError, Problem
from hero_plugin.integrations.support.flags import help_text
from hero_plugin.integrations.support.process import Interrupted
from hero_plugin.integrations.support.settings import ConfigError, parse, parse_named_paths, read_settings
from hero_plugin.integrations.training import train as training
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.distributed import PeerLost
from hero_plugin.integrations.training.emb import EmbTrainConfig
from hero_plugin.integrations.training.run_folder import RunFolder, RunFolderError


def run(capsys, *argv: str) -> tuple[int, str, str]:
    try:
        status = cli.main(argv)
    except SystemExit as leaving:
        status = leaving.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(capsys, argv):
    status, out, _ = run(capsys, *argv)
    assert status == 0
    assert all(command in out for command in cli.COMMANDS)


def test_help_loads_no_library():
    code = (
        "import sys; from hero_plugin.integrations.cli import main; main(['--help']); "
        "extra = {'torch', 'numpy', 'tyro', 'pydantic', 'rich', 'matplotlib', 'tensorboard', 'h5py'}; "
        "sys.exit(not extra.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian", "emb"], "did you mean `hero-plugin train emb`?"),
        (["evl"], "did you mean `hero-plugin eval`?"),
        (["train"], "say which: hero-plugin train emb"),
        (["train", "embb"], "say which: hero-plugin train emb"),
        (["xyzzy"], "no command 'xyzzy'"),
    ],
)
def test_a_wrong_command_names_the_right_one(capsys, argv, said):
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert said in err


def described() -> list:
    commands = [
        (name, command) for name, command in cli.COMMANDS.items() if name not in ("completion", "eval", "version")
    ]
    return [*commands, *(("eval", command) for command in cli.EVALUATIONS.values())]


@pytest.mark.parametrize(("name", "command"), described())
def test_help_has_the_flags_that_the_parser_takes_and_an_example_that_it_reads(name, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    kind = cli._flags(command)
    taken = io.StringIO()
    with pytest.raises(SystemExit), redirect_stdout(taken):
        parse(kind, name, ["--help"])
    flag = re.compile(r"^[ │]+(--\w[\w.-]*\w(?:, --[\w.-]+)?)", re.MULTILINE)
    shown = help_text(kind, name, command.example)
    of_parser, of_help = (
        {each for pair in flag.findall(text) for each in pair.split(", ")} for text in (taken.getvalue(), shown)
    )
    assert of_help <= of_parser
    assert {each for each in of_parser - of_help if "no-" not in each} == set()
    assert "default: None" not in shown and "{None" not in shown
    assert max(map(len, shown.splitlines())) <= 100
    words = shlex.split(command.example)
    assert parse(kind, name, words[: words.index("--")] if "--" in words else words)


def test_help_of_train_is_in_groups_and_says_what_is_required(capsys):
    status, out, _ = run(capsys, "help", "train", "emb")
    assert status == 0
    titles = re.findall("^(\\w.+):$", out, re.MULTILINE)
    assert titles == ["example", "data", "recipe", "HERO", "speed", "output", "EMB's own"]
    assert out.index("--output runs/hero") < out.index("--annotations-train PATH\n   ")
    required = [part.split()[0] for part in out.split("\n  --") if part.strip().endswith("(required)")]
    assert sorted(required) == ["annotations-train", "features", "output", "words"]


def test_a_wrong_flag_names_the_right_one(capsys):
    status, out, err = run(capsys, "train", "emb", "--batchsize", "3")
    assert status == 2
    assert "--batch-size" in out + err


def test_version_says_what_runs(capsys):
    assert run(capsys, "--version") == (0, f"hero-plugin {hero_plugin.__version__}\n", "")
    status, out, _ = run(capsys, "version")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["hero_plugin", "torch", "numpy", "python"]


def test_a_missing_extra_is_named_with_the_command_that_brings_it(capsys, monkeypatch):
    monkeypatch.setattr(cli, "EXTRA", ("tyro", "no_such_module"))
    status, _, err = run(capsys, "train", "emb")
    assert status == 2
    assert 'needs no_such_module: pip install "hero-plugin[train]"' in err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            DataError([Problem("a.json:3", "end before start", "swap them")]),
            2,
            "a.json:3: end before start -> swap them",
        ),
        (ConfigError("--lr must be positive"), 2, "--lr must be positive"),
        (FileNotFoundError("no file x"), 2, "no file x"),
        (IsADirectoryError(21, "Is a directory", ".x.writing", None, "x"), 2, "x: Is a directory"),
        (OSError(28, "No space left on device"), 2, "[Errno 28] No space left on device"),
        (Interrupted("stopped; resume with this"), 130, "stopped; resume with this"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_goes_wrong_is_one_message_and_a_status(capsys, monkeypatch, error, status, said):
    def fails(config):
        raise error

    monkeypatch.setattr(training, "run", fails)
    got, out, err = run(capsys, "train", "emb")
    assert got == status
    assert err.strip() == said
    assert not out


def test_a_process_that_lost_its_peers_ends_at_once(capsys, monkeypatch):
    def fails(config):
        raise PeerLost("another process has ended")

    ended = []
    monkeypatch.setattr(training, "run", fails)
    monkeypatch.setattr(os, "_exit", ended.append)
    _, _, err = run(capsys, "train", "emb")
    assert ended == [2]
    assert err.strip() == "another process has ended"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def fails(config):
        raise ZeroDivisionError

    monkeypatch.setattr(training, "run", fails)
    with pytest.raises(ZeroDivisionError):
        cli.main(["train", "emb"])


@pytest.mark.slow
@pytest.mark.parametrize("words", [["vocab", "stats", "--help"], ["vocab", "--help"], ["--help"]])
def test_a_pager_that_closes_early_gets_no_traceback(words):
    command = [sys.executable, "-m", "hero_plugin.integrations.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_all_that_is_wrong_with_the_flags_comes_at_once(capsys, tmp_path):
    status, _, err = run(capsys, "train", "emb", "--lr", "0", "--words", str(tmp_path / "none.npz"))
    assert status == 2
    for line in ("--output is missing", "--annotations-train is missing", "--lr must be positive", "none.npz: no such"):
        assert line in err


def test_numbers_below_zero_are_refused_before_anything_is_read():
    wrong = EmbTrainConfig(weight_decay=-0.1, workers=-1, threads=-2).mistakes()
    for line in ("weight-decay must be at least 0, got -0.1", "workers must be at least 0", "threads must be at least"):
        assert any(line in each for each in wrong)


@pytest.mark.parametrize("base", ["moment_detr", "moment-detr", "qd-detr", "tr_detr"])
def test_each_base_has_its_command_with_hyphens_or_without(capsys, base):
    status, out, _ = run(capsys, "train", base, "--help")
    assert status == 0
    assert all(flag in out for flag in ("--query-features", "--hero.levels", "--num-queries"))
    assert ("--vtc-loss-coef" in out) == base.startswith("tr")
    assert "--drop-rate" not in out


def test_every_field_of_hero_is_a_flag(capsys):
    status, out, _ = run(capsys, "train", "emb", "--help")
    assert status == 0
    for field in fields(HeroConfig):
        assert f"--hero.{field.name.replace('_', '-')}" in out


def flags(*argv: str) -> EmbTrainConfig:
    return parse(EmbTrainConfig, "train emb", argv)


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"epochs": 7, "lr": 1, "hero": {"levels": 2}, "features": ["a", "b"]}))
    config = flags("--config", str(file), "--epochs", "9", "--hero.no-sgvf")
    assert (config.epochs, config.lr, config.hero.levels, config.hero.sgvf, config.batch_size) == (9, 1.0, 2, False, 16)
    assert [path.name for path in config.features] == ["a", "b"]


def test_paper_is_the_literal_paper_and_ablations_go_on_from_there(tmp_path):
    assert flags("--paper").hero == HeroConfig.paper()
    assert flags("--paper", "--hero.levels", "8").hero == HeroConfig.paper(levels=8)
    file = tmp_path / "settings.json"
    file.write_text('{"paper": true, "hero": {"cmtr": false}}')
    assert flags("--config", str(file)).hero == HeroConfig.paper(cmtr=False)
    file.write_text('{"hero": {"levels": 2}}')
    assert flags("--config", str(file), "--paper").hero == HeroConfig.paper(levels=2)


def test_flags_of_hero_are_refused_for_the_plain_base_and_a_shared_file_is_not(tmp_path, runs):
    said = r"--base-only trains the plain base, in which --hero\.levels, --hero\.sgvf has no part; leave one out"
    with pytest.raises(ConfigError, match=said):
        flags("--base-only", "--hero.levels", "2", "--hero.no-sgvf")
    with pytest.raises(ConfigError, match="--base-only trains the plain base"):
        flags("--output", str(runs.base.path), "--resume", "--hero.levels", "2")
    file = tmp_path / "settings.json"
    file.write_text('{"base_only": true}')
    with pytest.raises(ConfigError, match="--base-only trains the plain base"):
        flags("--config", str(file), "--hero.levels", "2")
    file.write_text('{"hero": {"levels": 2}}')
    assert flags("--config", str(file), "--base-only").base_only and flags("--paper", "--base-only").base_only


def test_resuming_starts_from_the_settings_of_the_run(runs):
    config = flags("--output", str(runs.hero.path), "--resume")
    assert config.checked().to_json() == {
        k: v for k, v in runs.hero.config().items() if k not in ("versions", "annotations")
    }
    assert config.resume


def test_a_run_from_before_some_settings_existed_is_resumed(runs, tmp_path):
    old = {key: value for key, value in runs.hero.config().items() if key not in ("base", "schedule", "lr_drop")}
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = flags("--output", str(tmp_path), "--resume").checked()
    RunFolder.open(tmp_path).check_same(config.to_json())
    with pytest.raises(RunFolderError, match="schedule: was 'linear', now 'step'"):
        RunFolder.open(tmp_path).check_same({**config.to_json(), "schedule": "step"})


@pytest.mark.parametrize(
    ("changes", "calibrate"),
    [
        ({"base": "emb"}, True),
        ({"base": "emb", "paper": True}, False),
        ({"base": "qd_detr"}, False),
        ({"base": "qd_detr", "base_only": True}, True),
    ],
)
def test_runs_from_before_scores_were_calibrated_are_what_they_were(changes, calibrate, tmp_path):
    made = config_from(changes, "test").to_json()
    del made["hero"]["calibrate"]
    (tmp_path / "config.json").write_text(json.dumps(made))
    run = RunFolder.open(tmp_path)
    assert config_from(run.config(), "test").hero.calibrate is calibrate
    if calibrate or changes.get("paper"):  # the same command finds its run: nothing has changed
        run.check_same(config_from(changes, "test").to_json())
    else:
        with pytest.raises(RunFolderError, match="cannot resume with other settings"):
            run.check_same(config_from(changes, "test").to_json())


def test_a_run_does_not_go_on_with_other_lengths_of_videos(tmp_path):
    train, lengths = tmp_path / "train.txt", tmp_path / "lengths.json"
    train.write_text("v 0 5##person opens door\n")
    lengths.write_text('{"v": 30.0}')
    settings = config_from({"base": "emb"}, "test").to_json() | {
        "annotations_train": str(train),
        "durations": str(lengths),
    }
    begun = RunFolder.create(tmp_path / "run", settings, resume=False, overwrite=False)
    begun.check_same(settings)
    known = begun.config()
    lengths.write_text('{"v": 4.0}')
    with pytest.raises(RunFolderError, match=r"annotations or durations are not what .*: .*lengths\.json\. Put"):
        begun.check_same(settings)
    del known["annotations"][str(lengths)]  # a run of an earlier version does not know
    begun.write_json(begun.config_file, known)
    begun.check_same(settings)


def test_resume_needs_to_know_what(capsys):
    status, _, err = run(capsys, "train", "emb", "--resume")
    assert status == 2
    assert "--resume needs --output" in err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": 3}, "no setting 'epoch'; did you mean 'epochs'?"),
        ({"hero": {"level": 3}}, "no setting 'hero.level'; did you mean 'levels'?"),
        ({"hero": 3}, "hero must be a table of settings, got 3"),
        ({"epochs": "3"}, "epochs must be a valid integer, got '3'"),
        ({"epochs": None}, "epochs must be a valid integer, got None"),
        ({"features": 3}, "features must be a list, got 3"),
        ({"words": 3}, "words must be a valid string, got 3"),
        ({"amp": "bf61"}, "amp must be 'none', 'bf16' or 'fp16', got 'bf61'"),
        ({"epoch": 3, "words": 3}, "no setting 'epoch'.*\n.*words must be"),
        ({"hero": {"mask_ratio": 2.0}}, "mask_ratio must be in"),
    ],
)
def test_a_settings_file_is_checked_field_by_field(settings, said):
    if "mask_ratio" in said:
        said = "mask_ratio must be"
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        config_from(settings, "file.json")


def test_a_config_survives_its_own_json(runs):
    config = runs.config(output="somewhere", paper=True, hero={"levels": 2}, compare=str(runs.base.path)).checked()
    again = config_from(json.loads(json.dumps(config.to_json())), "again")
    assert again.to_json() == config.to_json()
    assert again.hero == config.hero == HeroConfig.paper(levels=2)


def test_a_settings_file_that_is_none_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{\n  no}")
    with pytest.raises(ConfigError, match=r"bad\.json:2: not JSON"):
        read_settings(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"list\.json: must be a table of settings, got a list"):
        read_settings(tmp_path / "list.json")
    (tmp_path / "latin.json").write_bytes('{"words": "é"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.json: not a text file in UTF-8"):
        read_settings(tmp_path / "latin.json")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_toml_is_read_as_well(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('epochs = 4\nfeatures = ["a"]\n[hero]\nlevels = 2\n')
    config = config_from(read_settings(file), str(file))
    assert (config.epochs, config.hero.levels) == (4, 2)
    file.write_text("epochs = = 4")
    with pytest.raises(ConfigError, match="not TOML"):
        read_settings(file)


def test_test_sets_have_names(tmp_path):
    config = EmbTrainConfig(annotations_test=("iid=a/b.json", "ood.json"))
    assert [(name, str(path)) for name, path in config.test_sets()] == [("iid", "a/b.json"), ("ood", "ood.json")]
    # A slash is of a path, and what is read again is the same.
    for text, named in (("runs/lr=1/a.json", "a"), ("./b=c.json", "b-c")):
        assert EmbTrainConfig(annotations_test=(text,)).test_sets() == [(named, Path(text))]
        assert parse_named_paths([f"{named}={text}"]) == [(named, Path(text))]
    with pytest.raises(ConfigError, match="different names"):
        EmbTrainConfig(annotations_test=("a.json", "a.json")).checked()
