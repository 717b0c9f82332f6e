"""The launcher on a small repository of Moment-DETR's shape, written here: train, save, evaluate, resume, stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from hero_plugin import HeroConfig, config_of
from hero_plugin.integrations.cli import main
from hero_plugin.integrations.tools.launch.wrapping import Wrapping
from hero_plugin.integrations.training.checkpoints import load_checkpoint_safely, supported
from tests.tools.launch.layouts import environment, files, launch, launch_words

MODEL = """
from hero_plugin.adapters.moment_detr import MomentDETRConfig, build_moment_detr

def build_model(opt):
    sizes = dict(text_dim=8, video_dim=6, hidden_dim=16, nheads=4, dim_feedforward=16, enc_layers=1, dec_layers=1)
    return build_moment_detr(MomentDETRConfig(**sizes))
"""
TRAIN = """
import argparse, os, sys, time
import torch
from moment_detr.model import build_model

def batch():
    clips, words = torch.randn(3, 9, 6), torch.randn(3, 5, 8)
    inputs = dict(src_txt=words, src_txt_mask=torch.ones(3, 5), src_vid=clips, src_vid_mask=torch.ones(3, 9))
    spans = [{"spans": torch.tensor([[0.5, 0.4]])} for _ in range(3)]
    pairs = torch.tensor([[3, 4]] * 3), torch.tensor([[0, 8]] * 3)
    targets = {"span_labels": spans, "saliency_pos_labels": pairs[0], "saliency_neg_labels": pairs[1]}
    return inputs, targets

def setup(opt):
    torch.manual_seed(opt.seed)
    model, criterion = build_model(opt)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    if opt.resume:
        checkpoint = torch.load(opt.resume, map_location="cpu")
        model.load_state_dict(checkpoint["model"])
        print("resumed with", vars(checkpoint["opt"])["seed"])
    return model, criterion, optimizer

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--resume")
    opt = parser.parse_args()
    model, criterion, optimizer = setup(opt)
    for step in range(opt.steps):
        inputs, targets = batch()
        losses = criterion(model(**inputs), targets)
        total = sum(losses[k] * criterion.weight_dict[k] for k in losses if k in criterion.weight_dict)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        print(step, " ".join(f"{name} {float(value):.4f}" for name, value in losses.items()), flush=True)
        os.makedirs("results", exist_ok=True)
        torch.save({"model": model.state_dict(), "opt": opt}, "results/unfinished")
        os.replace("results/unfinished", "results/model.ckpt")
        if opt.steps > 1000:
            time.sleep(0.05)
"""
INFERENCE = """
import argparse
import torch
from moment_detr.train import batch, setup

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume", required=True)
    opt = parser.parse_args()
    opt.seed = 0
    model, _, _ = setup(opt)
    with torch.no_grad():
        print("score", float(model.eval()(**batch()[0])["pred_logits"].sum()))
"""
needs_torch_2_4 = pytest.mark.skipif(not supported(), reason="torch before 2.4 cannot read settings safely")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "clone"
    (folder / "moment_detr").mkdir(parents=True)
    for name, code in (("__init__", ""), ("model", MODEL), ("train", TRAIN), ("inference", INFERENCE)):
        (folder / "moment_detr" / f"{name}.py").write_text(code)
    (folder / "train.sh").write_text(
        "seed=7\nPYTHONPATH=$PYTHONPATH:. python moment_detr/train.py --seed ${seed} ${@:1}\n"
    )
    return folder


def here(repository, *flags, command):
    """The launcher in this process, which is faster."""
    try:
        return main(["launch", "--repo", str(repository), *flags, "--", *command])
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "moment_detr"]:
            del sys.modules[name]


@needs_torch_2_4
def test_train_then_evaluate_then_resume(repository, capfd):
    before = files(repository)
    assert here(repository, "--levels", "2", "--num-heads", "4", command=["moment_detr/train.py", "--seed", "1"]) == 0
    out, err = capfd.readouterr()
    assert "loss_relevance" in out and "loss_consistency" in out
    assert "HERO around MomentDETR: --levels 2 --num-heads 4 (from the flags)" in err
    after = files(repository)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {"results/model.ckpt", "results/hero.json"}
    saved = load_checkpoint_safely(repository / "results/model.ckpt")
    assert config_of(saved["model"]) == HeroConfig(levels=2, num_heads=4)
    said = json.loads(after["results/hero.json"])
    assert said["base"] == "MomentDETR" and HeroConfig.from_dict(said["config"]) == config_of(saved["model"])

    scores = []
    for _ in range(2):  # the checkpoint says which HERO it is: no flag is needed
        assert here(repository, command=["python", "moment_detr/inference.py", "--resume", "results/model.ckpt"]) == 0
        scores.append([line for line in capfd.readouterr().out.splitlines() if line.startswith("score")])
    assert scores[0] == scores[1] and len(scores[0]) == 1

    command = ["moment_detr/train.py", "--resume", "results/model.ckpt", "--steps", "1"]
    assert here(repository, command=command) == 0
    assert "resumed with 1" in capfd.readouterr().out


@needs_torch_2_4
def test_flags_that_contradict_the_checkpoint_are_named(repository, capfd):
    assert here(repository, "--levels", "2", "--num-heads", "4", command=["moment_detr/train.py", "--steps", "1"]) == 0
    command = ["moment_detr/inference.py", "--resume", "results/model.ckpt"]
    assert here(repository, "--levels", "4", "--no-sgvf", "--mask-ratio", "0.2", command=command) == 2
    said = "--levels 4 --no-sgvf contradicts results/model.ckpt, whose HERO has --levels 2 --sgvf: leave it out"
    assert said in capfd.readouterr().err


@pytest.mark.slow
def test_without_hero_is_the_script_itself(repository, capfd):
    command = ["moment_detr/train.py", "--seed", "3"]
    assert here(repository, "--without-hero", command=command) == 0
    launched = capfd.readouterr().out
    environ = {**environment(), "PYTHONPATH": str(repository)}
    plain = subprocess.run(
        [sys.executable, *command], cwd=repository, env=environ, capture_output=True, text=True, check=True
    )
    assert launched == plain.stdout
    assert "loss_relevance" not in launched


def test_hero_off_trains_as_the_script_itself(repository, capfd):
    outputs = []
    for flags in (["--without-hero"], ["--levels", "1", "--no-sgvf", "--no-cmtr"]):
        assert here(repository, *flags, command=["moment_detr/train.py", "--seed", "3"]) == 0
        outputs.append(capfd.readouterr().out)
    assert outputs[0] == outputs[1]


def test_dry_run_lists_every_change_and_runs_nothing(repository, capsys):
    before = files(repository)
    assert here(repository, "--paper", "--dry-run", command=["python", "moment_detr/train.py", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert "runs        python moment_detr/train.py --seed 3" in said
    assert "--levels 4 --norm post" in said and "from the flags" in said
    assert "moment_detr.model.build_model: what it builds gets HERO around it" in said
    assert ("changes torch.load" in said) == supported()
    assert files(repository) == before
    assert here(repository, "--without-hero", "--dry-run", command=["moment_detr/train.py"]) == 0
    assert "build_model" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_shell_script_of_the_repositorys(repository):
    done = launch(repository, "--num-heads", "4", command=["bash", "train.sh", "--steps", "1"])
    assert done.returncode == 0, done.stderr
    assert "loss_relevance" in done.stdout and "HERO around MomentDETR" in done.stderr
    dry = launch(repository, "--dry-run", command=["train.sh"])
    assert "runs        python moment_detr/train.py --seed 7" in dry.stdout
    assert launch(repository, command=["bash", "trian.sh"]).returncode == 2


@needs_torch_2_4
def test_a_frozen_base_keeps_the_weights_that_its_checkpoint_brought(repository, capfd):
    assert here(repository, "--without-hero", command=["moment_detr/train.py"]) == 0
    base = load_checkpoint_safely(repository / "results/model.ckpt")["model"]
    command = ["moment_detr/train.py", "--resume", "results/model.ckpt"]
    assert here(repository, "--freeze-base", "--num-heads", "4", command=command) == 0
    told = capfd.readouterr()
    assert "loss_relevance" in told.out and "results/model.ckpt holds a base without HERO" in told.err
    wrapped = load_checkpoint_safely(repository / "results/model.ckpt")["model"]
    assert all(torch.equal(wrapped[f"base.{name}"], value) for name, value in base.items())
    assert not torch.equal(wrapped["hero.sgvf.strength"], torch.zeros_like(wrapped["hero.sgvf.strength"]))


@needs_torch_2_4
def test_a_frozen_base_without_a_checkpoint_is_told(repository, capfd):
    command = ["moment_detr/train.py", "--steps", "1"]
    assert here(repository, "--freeze-base", "--num-heads", "4", command=command) == 0
    assert "no checkpoint among the script's arguments" in capfd.readouterr().err


def test_any_repository_whose_builder_is_named(repository, capfd):
    (repository / "moment_detr").rename(repository / "mine")
    for script in (repository / "mine").glob("*.py"):
        script.write_text(script.read_text().replace("moment_detr.model import", "mine.model import"))
    command = ["mine/train.py", "--steps", "1"]
    assert here(repository, "--build", "mine.model:build_model", "--num-heads", "4", command=command) == 0
    assert "loss_relevance" in capfd.readouterr().out
    sys.modules.pop("mine.model", None)
    assert here(repository, "--build", "mine.model:build", command=command) == 2
    assert "built no model by mine.model:build" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "command", "message"),
    [
        ([], [], "command line after --, such as: -- python moment_detr/train.py"),
        (
            [],
            ["moment_detr/trian.py"],
            "no Python script 'moment_detr/trian.py'; there are moment_detr/train.py, moment",
        ),
        (["--norm", "post"], ["moment_detr/train.py"], "--identity-start needs --norm pre"),
        (
            ["--num-heads", "3"],
            ["moment_detr/train.py"],
            "MomentDETR: dim must be a multiple of --num-heads, got dim=16",
        ),
        (["--threads", "-1"], ["moment_detr/train.py"], "--threads must be at least 0"),
        ([], ["CUDA_VISIBLE_DEVICES=0", "python", "moment_detr/train.py"], "put CUDA_VISIBLE_DEVICES=0 before hero-"),
        ([], ["bash", "trian.sh"], "no shell script 'trian.sh'; there are train.sh"),
        (
            ["--without-hero", "--levels", "2", "--no-cmtr"],
            ["moment_detr/train.py"],
            "contradicts --levels 2 --no-cmtr:",
        ),
        (["--without-hero", "--paper"], ["moment_detr/train.py"], "--without-hero contradicts --paper: leave one"),
        (
            ["--levels", "1", "--no-sgvf", "--no-cmtr", "--freeze-base"],
            ["moment_detr/train.py"],
            "--freeze-base with H",
        ),
    ],
)
def test_mistakes(repository, capfd, flags, command, message):
    try:
        status = here(repository, *flags, command=command)
    except SystemExit as refused:  # tyro's
        status = refused.code
    assert status == 2
    assert message in "".join(capfd.readouterr())


def test_without_dashes_the_right_line_is_said(repository, capfd):
    assert main(["launch", "--levels", "2", "python", "moment_detr/train.py", "--seed", "1"]) == 2
    said = "hero-plugin launch --levels 2 -- python moment_detr/train.py --seed 1"
    assert said in capfd.readouterr().err


def test_the_scripts_own_errors_are_its_own(repository, capfd):
    train = repository / "moment_detr" / "train.py"
    train.write_text("def main():\n    import absent_package_of_theirs\nmain()\n")
    assert here(repository, command=["moment_detr/train.py"]) == 1
    assert "absent_package_of_theirs, not installed here: pip install absent_package_of" in capfd.readouterr().err
    train.write_text("raise AssertionError('Torch not compiled with CUDA enabled')\n")
    assert here(repository, command=["moment_detr/train.py"]) == 1
    assert "give the script its own flag for the CPU" in capfd.readouterr().err
    train.write_text("import sys\nsys.exit(5)\n")
    assert here(repository, command=["moment_detr/train.py"]) == 5


def test_all_that_is_not_installed_is_said_before_anything_runs(repository, capfd):
    model = repository / "moment_detr" / "model.py"
    model.write_text("import absent_package, yaml_absent\n" + model.read_text())
    command = ["moment_detr/train.py"]
    advice = "needs absent_package, yaml_absent, not installed here: pip install absent_package yaml_absent"
    assert here(repository, command=command) == 2
    assert advice in capfd.readouterr().err
    assert here(repository, "--dry-run", command=command) == 0
    assert advice in capfd.readouterr().out


@pytest.mark.parametrize("file", ["model", "train"])
def test_an_edit_by_hand_together_with_the_launcher(repository, capfd, file):
    path = repository / "moment_detr" / f"{file}.py"
    edit = {
        "model": ("    return build_moment_detr", "    return wrapped(*build_moment_detr"),
        "train": ("    model, criterion = build_model(opt)", "    model, criterion = wrapped(*build_model(opt))"),
    }[file]
    code = path.read_text().replace(*edit).replace("Config(**sizes))", "Config(**sizes)))" if file == "model" else "")
    by_hand = "import hero_plugin\n\ndef wrapped(model, criterion):\n"
    path.write_text(f"{by_hand}    return hero_plugin.wrap_model(model, num_heads=4), criterion\n{code}")
    assert here(repository, "--num-heads", "4", command=["moment_detr/train.py"]) in (1, 2)
    assert "add --without-hero" in capfd.readouterr().err
    assert here(repository, "--without-hero", command=["moment_detr/train.py", "--steps", "1"]) == 0


def test_threads(repository, capfd):
    (repository / "moment_detr" / "train.py").write_text("import torch\nprint(torch.get_num_threads(), 'threads')\n")
    before = torch.get_num_threads()
    try:
        assert here(repository, "--without-hero", "--threads", "2", command=["moment_detr/train.py"]) == 0
    finally:
        torch.set_num_threads(before)
    assert "2 threads" in capfd.readouterr().out


@pytest.mark.slow
def test_ctrl_c_stops_it_and_its_checkpoint_resumes(repository):
    words = launch_words(repository, "--num-heads", "4", command=["moment_detr/train.py", "--steps", "100000"])
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped"
    if supported():
        saved = load_checkpoint_safely(repository / "results/model.ckpt")
        assert all(torch.isfinite(value).all() for value in saved["model"].values())


def shell(repository, *lines):
    (repository / "mine.sh").write_text("\n".join(["set -e", *lines]) + "\n")
    return launch(repository, "--num-heads", "4", command=["bash", "mine.sh"])


@pytest.mark.slow
class Stops:
    """What is met by Ctrl-C while it is saved."""

    def __reduce__(self):
        raise KeyboardInterrupt


def test_ctrl_c_while_a_checkpoint_is_saved_leaves_the_one_before(tmp_path):
    wrapping, path = Wrapping(HeroConfig()), tmp_path / "best.ckpt"
    wrapping.save(torch.save, {"epoch": 1}, path)
    with pytest.raises(KeyboardInterrupt):
        wrapping.save(torch.save, {"epoch": 2, "rest": Stops()}, path)
    assert torch.load(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
    link = tmp_path / "last.ckpt"
    link.symlink_to(path)
    wrapping.save(torch.save, {"epoch": 3}, str(link))
    assert torch.load(path) == {"epoch": 3} and link.is_symlink()


def test_a_checkpoint_is_saved_however_its_file_is_named(tmp_path):
    Wrapping(HeroConfig()).save(torch.save, obj={"epoch": 1}, f=str(tmp_path / "last.ckpt"))
    assert torch.load(tmp_path / "last.ckpt") == {"epoch": 1}


def test_a_script_that_ends_itself_is_asked_for_hero_too(repository, capfd):
    """``sys.exit(main())`` is how many scripts end: a plain base must not train there without a word."""
    script = repository / "moment_detr/train.py"
    script.write_text(script.read_text() + "    import sys\n    sys.exit()\n")
    train = ["moment_detr/train.py", "--steps", "1"]
    assert here(repository, "--num-heads", "4", command=train) == 0
    (repository / "plain.py").write_text("import sys\nprint('plain')\nsys.exit(0)\n")
    assert here(repository, command=["plain.py"]) == 2
    assert "plain.py built no model" in capfd.readouterr().err
    assert here(repository, command=[*train, "--help"]) == 0
    (repository / "plain.py").write_text("import sys\nsys.exit(3)\n")
    assert here(repository, command=["plain.py"]) == 3


@pytest.mark.slow
def test_a_shell_script_may_prepare_first_and_run_from_a_folder(repository):
    (repository / "prepare.py").write_text("print('prepared')\n")
    done = shell(repository, "python prepare.py", "cd moment_detr", "python train.py --steps 1")
    assert done.returncode == 0, done.stderr
    assert "prepared" in done.stdout and "loss_relevance" in done.stdout
    assert "prepare.py built no model" in done.stderr and "HERO around MomentDETR" in done.stderr


@needs_torch_2_4
def test_a_checkpoint_is_looked_for_where_the_script_runs(repository, capfd, monkeypatch):
    """A script that went into a folder names it from there; one of that name at the top is another."""
    (repository / "work").mkdir()
    monkeypatch.chdir(repository / "work")
    train = ["python", "../moment_detr/train.py", "--steps", "1"]
    assert here(repository, "--num-heads", "4", command=train) == 0
    (repository / "results").mkdir()
    (repository / "results/model.ckpt").write_text("something else")
    capfd.readouterr()
    assert here(repository, command=[*train, "--resume", "results/model.ckpt"]) == 0
    said = capfd.readouterr()
    assert "resumed with 0" in said.out and "results/model.ckpt" in said.err.partition("HERO around")[2]


@pytest.mark.slow
def test_ctrl_c_ends_a_shell_script_at_once(repository):
    lines = ["python moment_detr/train.py --steps 100000", "python moment_detr/train.py --steps 1", "echo went on"]
    (repository / "mine.sh").write_text("\n".join(lines))
    words = launch_words(repository, "--num-heads", "4", command=["mine.sh"])
    group = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(words, env=environment(), **group)
    try:
        for _ in range(3):
            process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "went on" not in out and err.count("stopped") == 1 and err.count("HERO around") == 1


@pytest.mark.slow
def test_a_shell_script_in_which_hero_was_not_is_told(repository):
    (repository / "prepare.py").write_text("print('prepared')\n")
    done = shell(repository, "python prepare.py", "python -c 'print(1)'", "echo 2 | python -")
    assert done.returncode == 2 and "HERO was not in this run" in done.stderr
    assert (
        shell(repository, "python -W ignore moment_detr/train.py --steps 1").returncode == 2
    )  # never plain in silence


@needs_torch_2_4
def test_the_paper_and_a_checkpoint_of_another_hero_contradict(repository, capfd):
    assert here(repository, "--num-heads", "4", command=["moment_detr/train.py"]) == 0
    command = ["moment_detr/train.py", "--resume", "results/model.ckpt"]
    assert here(repository, "--paper", "--num-heads", "4", command=command) == 2
    said = capfd.readouterr().err
    assert "--paper: --norm post --no-positions" in said
    assert "contradicts results/model.ckpt, whose HERO has --norm pre" in said and "leave --paper out" in said
