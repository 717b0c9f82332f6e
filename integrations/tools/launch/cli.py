"""``hero-plugin launch``, and the repositories that it knows: how they are told apart, where they build a model."""

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from hero_plugin import HeroConfig
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import ConfigError, parse, too_small
from hero_plugin.integrations.tools.launch import run as running
from hero_plugin.integrations.tools.launch import shims
from hero_plugin.integrations.tools.launch import wrapping as wraps
from hero_plugin.integrations.tools.launch.predictors import predictor_patches
from hero_plugin.integrations.tools.launch.run import Patch, Script, around, how_to_install
from hero_plugin.integrations.tools.launch.shims import Shim
from hero_plugin.integrations.training.checkpoints import load_checkpoint_safely, supported

Words = Sequence[str]


def path_after(*flags: str) -> Callable[[Words], Path | None]:
    """Return a function that reads the path after one of the flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*flags, dest="path", type=Path)
    return lambda words: parser.parse_known_args(list(words))[0].path


RESUMED = path_after("--resume")


@dataclass(frozen=True)
class Repository:
    """What the launcher knows of a repository."""

    name: str
    builders: tuple[str, ...]
    """MODULE:NAME of what builds its models."""
    repairs: tuple[shims.Shim, ...]
    """The shims that its code needs on some machine."""
    signs: tuple[str, ...] = ()
    """Files that it has, and none of the others has all of."""
    scripts: tuple[str, ...] = ()
    """Its entry points."""
    checkpoint: Callable[[Words], Path | None] = RESUMED
    """Its arguments -> the checkpoint that they say to load, if any."""
    extras: Callable[[wraps.Wrapping], tuple[Patch, ...]] = lambda wrapping: ()
    """Patches beyond the builders, which HERO needs there."""

    def patches(self, wrapping: wraps.Wrapping | None) -> list[Patch]:
        """Return what puts HERO in: nothing without a wrapping."""
        if wrapping is None:
            return []
        why = "what it builds gets HERO around it, model and criterion"
        places = (builder.split(":") for builder in self.builders)
        built = [Patch(module, name, around(wrapping.build), why) for module, name in places]
        noted = Patch("torch", "save", around(wrapping.save), "writes hero.json, which HERO it is, beside checkpoints")
        return [*built, noted, *self.extras(wrapping)]


def emb_checkpoint(words: Words) -> Path | None:
    """Return the best model of the folder that three flags name, which EMB's tests load."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, default in (("mode", "train"), ("model_dir", "sessions"), ("task", "charades"), ("model_name", "")):
        parser.add_argument(f"--{flag}", default=default)
    given = parser.parse_known_args(list(words))[0]
    if given.mode.lower() != "test":
        return None
    return Path(given.model_dir, given.task, given.model_name, "model_best.pth.tar")


def emb_extras(wrapping: wraps.Wrapping) -> tuple[Patch, ...]:
    """Log HERO's losses, which are inside EMB's ``Loc``, apart, too."""

    def update(original: Callable[..., Any], *args: Any, **losses: Any) -> Any:
        ours = {} if wrapping.model is None else wrapping.model.hero_losses()
        return original(*args, **losses, **ours)

    why = "logs loss_relevance and loss_consistency, not weighted, beside EMB's losses"
    return (Patch("util.runner_utils", "ProgressMeters.update", around(update), why),)


def lighthouse_extras(wrapping: wraps.Wrapping) -> tuple[Patch, ...]:
    """Add HERO's losses to TaskWeave's sum, which takes losses by their names' parts; serve HERO's weights."""

    def calculate(
        original: Callable[..., Any], losses: Mapping[str, Any], weights: Mapping[str, float], *rest: Any
    ) -> Any:
        ours = [name for name in ("loss_relevance", "loss_consistency") if name in losses]
        return original(losses, weights, *rest) + sum(losses[name] * weights[name] for name in ours)

    summed = Patch("__main__", "calculate_taskweave_losses", around(calculate), "adds HERO's weighted losses")
    return (summed, *predictor_patches(wrapping))


def detr(name: str, package: str, *repairs: shims.Shim, builder: str = "build_model") -> Repository:
    """Describe Moment-DETR's repository, or one of its heirs', which differ in the name of a package."""
    return Repository(
        name=name,
        signs=(f"{package}/train.py", f"{package}/inference.py", f"{package}/model.py"),
        builders=(f"{package}.model:{builder}",),
        scripts=(f"{package}/train.py", f"{package}/inference.py"),
        repairs=(shims.TORCH_LOAD, shims.configured_device(f"{package}.config"), *repairs, shims.FORK),
    )


# Lighthouse's training script and its evaluation import the same file under these two names.
CONFIGURED_DEVICE = shims.configured_device("config", "training.config")
LIGHTHOUSE_MODELS = ("moment_detr", "qd_detr", "tr_detr", "eatr", "cg_detr", "uvcom", "taskweave")

REPOSITORIES = (
    Repository(
        name="EMB",
        signs=("main.py", "model/emb.py", "model/proposal.py"),
        builders=("__main__:EMB",),  # where it is defined, its own super(EMB, self) has to find the class
        scripts=("main.py",),
        checkpoint=emb_checkpoint,
        repairs=(shims.TRANSFORMERS_ADAMW, shims.FLOAT_LENGTHS, shims.PUNKT, shims.TORCH_LOAD, shims.FORK),
        extras=emb_extras,
    ),
    detr("Moment-DETR", "moment_detr"),
    detr("QD-DETR", "qd_detr", shims.CUDA_ON_CPU),
    detr("TR-DETR", "tr_detr", shims.CUDA_ON_CPU, shims.FOCAL_LOSS),
    detr("FlashVTG", "FlashVTG", shims.TORCHTEXT, builder="build_model1"),
    Repository(
        name="Lighthouse",
        signs=("training/train.py", "training/evaluate.py", "lighthouse/common/moment_detr.py"),
        builders=tuple(f"lighthouse.common.{model}:build_model" for model in LIGHTHOUSE_MODELS),
        scripts=("training/train.py", "training/evaluate.py", "gradio_demo/demo.py"),
        checkpoint=path_after("--model_path", "--resume", "-r"),
        repairs=(shims.TORCH_LOAD, CONFIGURED_DEVICE, shims.CUDA_ON_CPU, shims.FOCAL_LOSS, shims.FORK),
        extras=lighthouse_extras,
    ),
)


def recognise(folder: Path) -> Repository:
    """Return what is known of the repository at ``folder``; raise ``UserError`` where it is none of the known ones."""
    if not folder.is_dir():
        raise UserError(f"--repo {folder}: no such folder")
    for repository in REPOSITORIES:
        if all((folder / sign).is_file() for sign in repository.signs):
            return repository
    known = "\n".join(f"  {each.name:<12} {', '.join(each.signs)}" for each in REPOSITORIES)
    raise UserError(
        f"--repo {folder}: this is none of the repositories known here, which are told by these files:\n{known}\n"
        "For another one, say what builds its model: --build MODULE:FUNCTION, a function that returns the model, or "
        "model and criterion. Or wrap it by hand, which takes two lines: docs/guide/by_hand.md"
    )


def unknown(folder: Path, builder: str) -> Repository:
    """Describe a repository that only its user knows; raise ``UserError`` where ``builder`` is not MODULE:FUNCTION."""
    module, colon, name = builder.partition(":")
    if not (module and colon and name):
        raise UserError(f"--build takes MODULE:FUNCTION, as in moment_detr.model:build_model, got {builder!r}")
    return Repository(folder.name, (builder,), (shims.TORCH_LOAD, shims.CUDA_ON_CPU, shims.FORK))


NO_GPU = "this torch finds no GPU: give the script its own flag for the CPU"
HINTS = {"already has HERO around it": wraps.BY_HAND, "with CUDA enabled": NO_GPU, "no NVIDIA driver": NO_GPU}
"""What to do about errors that scripts raise, by a part of their message."""


@dataclass
class LaunchConfig:
    """Run a repository's own training or evaluation, unchanged, with HERO around its model and its criterion.

    The repository's command line comes after --: its script, seen from its top folder, and that script's arguments; or
    a shell script that starts it. HERO's flags are those of HeroConfig. A checkpoint knows its own: evaluating and
    resuming need none.
    """

    repo: Path = Path(".")
    """The clone: EMB, Moment-DETR, QD-DETR, TR-DETR, FlashVTG or Lighthouse."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""
    without_hero: bool = False
    """Run the plain base by the same path."""
    dry_run: bool = False
    """Say what would be run, and what is changed at run time; run nothing. (A shell script runs, to show what it
    starts, with its Python scripts only described.)"""
    build: str | None = None
    """For any other repository: MODULE:FUNCTION of what builds its model, or its model and criterion."""
    paper: bool = False
    """Start from the literal paper (HeroConfig.paper()) instead of the measured defaults."""
    freeze_base: bool = False
    """Train the plug-in alone, on a base that a checkpoint brings: the base takes no gradient and no dropout."""
    hero: Annotated[HeroConfig, tyro.conf.arg(name="")] = field(default_factory=HeroConfig)


def command(argv: Sequence[str]) -> int:
    """Run ``hero-plugin launch [flags] -- COMMAND LINE``. Return the repository's exit status."""
    flags, words = running.split(argv)
    config = read(flags, HeroConfig.paper() if "--paper" in flags else HeroConfig())
    if wrong := too_small(config, threads=0):
        raise UserError("\n".join(wrong))
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = config.repo.expanduser().resolve()
    repository = recognise(folder) if config.build is None else unknown(folder, config.build)
    if running.is_shell(words):
        return running.run_shell(folder, flags, words, dry_run=config.dry_run, plain=config.without_hero)
    script = running.parse_command(folder, words, repository.scripts)
    chosen, origin = choose(config, flags, repository, script)
    wrapping = None if chosen is None else wraps.Wrapping(chosen, origin, freeze_base=config.freeze_base)
    needed = [shim for shim in repository.repairs if shim.needed()]
    stand_ins = {name: module for shim in needed for name, module in shim.stand_ins().items()}
    missing = [name for name in running.missing_modules(script) if name not in stand_ins]
    if config.dry_run:
        print(describe(repository, script, wrapping, needed))
        if missing:
            print(f"\n{how_to_install(repository.name, missing)}")
        return 0
    if missing:
        raise UserError(how_to_install(repository.name, missing))
    sys.modules.update(stand_ins)
    return run(repository, script, wrapping, needed)


def read(flags: Sequence[str], start: HeroConfig) -> LaunchConfig:
    """Return the flags over a start.

    Over a checkpoint's HERO they are read again: from what the first reading returned, nobody can tell a flag that was
    given at its default, and wins over a checkpoint, from one that was not given.
    """
    try:
        return parse(LaunchConfig, "launch", flags, LaunchConfig(hero=start))
    except ConfigError as error:
        raise UserError(wraps.in_flags(str(error))) from error


def choose(
    config: LaunchConfig, flags: Sequence[str], repository: Repository, script: Script
) -> tuple[HeroConfig | None, str]:
    """Return what to wrap with, None for nothing, and where that comes from: flags, over a checkpoint.

    Raises ``UserError`` where flags contradict each other, or the checkpoint.
    """
    path = repository.checkpoint(script.arguments)
    there = path is not None and (script.folder / path).is_file()
    known = wraps.saved_config(load_checkpoint_safely(script.folder / str(path))) if there and supported() else None
    if config.without_hero:
        given = [word for word in flags if word in ("--paper", "--freeze-base")]
        given += [wraps.as_flags(config.hero)] if config.hero != HeroConfig() and "--paper" not in given else []
        if given:
            raise UserError(f"--without-hero contradicts {' '.join(given)}: leave one of them out")
        if known is not None:
            print(f"hero-plugin: {path} is HERO's, which a plain base that no edit wraps cannot load", file=sys.stderr)
        return None, "--without-hero"
    if known is None:
        if there and supported():
            print(
                f"hero-plugin: {path} holds a base without HERO, which starts fresh around it: untrained, it is worth "
                "no score; --without-hero evaluates the base",
                file=sys.stderr,
            )
        elif config.freeze_base and not there:
            print(
                "hero-plugin: --freeze-base, and no checkpoint among the script's arguments: a base that the script "
                "does not load either stays at random",
                file=sys.stderr,
            )
        return config.hero, "the defaults" if config.hero == HeroConfig() else "the flags"
    chosen = config.hero if config.paper else read(flags, known).hero
    if wrong := wraps.contradictions(chosen, known):
        paper = "--paper: " if config.paper else ""
        raise UserError(
            f"{paper}{wraps.as_flags(chosen, wrong)} contradicts {path}, whose HERO has "
            f"{wraps.as_flags(known, wrong)}: leave {'--paper' if paper else 'it'} out"
        )
    return chosen, str(path) if chosen == known else f"{path} and the flags"


def describe(repository: Repository, script: Script, wrapping: wraps.Wrapping | None, needed: Sequence[Shim]) -> str:
    """Say what would be run, and everything that is changed at run time."""
    patches = repository.patches(wrapping)
    hero = "none" if wrapping is None else f"{wraps.as_flags(wrapping.config)} (from {wrapping.origin})"
    lines = [
        f"repository  {repository.name}, {script.repository}",
        f"runs        {shlex.join(['python', script.shown, *script.arguments])}",
        f"HERO        {hero}",
        "",
        "Changed at run time; no file of the repository is touched:" if patches or needed else "Nothing is changed.",
        *(f"  {patch.target}: {patch.why}" for patch in patches),
    ]
    for shim in needed:
        lines += [f"  shim {shim.name}: {shim.repair}", f"      without it: {shim.symptom}"]
        lines += [f"      changes {patch.target}" for patch in shim.patches]
        lines += [f"      stands in for the module {name}" for name in shim.stand_ins()]
    spare = [shim.name for shim in repository.repairs if shim not in needed]
    return "\n".join([*lines, *(["", f"Not needed on this machine: {', '.join(spare)}"] if spare else [])])


def run(repository: Repository, script: Script, wrapping: wraps.Wrapping | None, needed: Sequence[Shim]) -> int:
    """Run the script with everything in place. Its exceptions are shown as Python would show them."""
    for shim in needed:
        print(f"hero-plugin: shim {shim.name}: {shim.repair}", file=sys.stderr)
    repairs = [patch for shim in needed for patch in shim.patches]
    try:
        running.run_script(script, [*repository.patches(wrapping), *repairs])
    except SystemExit as stopped:
        if stopped.code is not None and not isinstance(stopped.code, int):
            print(stopped.code, file=sys.stderr)
            return 1
        if stopped.code or {"-h", "--help"} & set(script.arguments):
            return stopped.code or 0
    except KeyboardInterrupt:
        if running.WRAPPED in os.environ:  # a shell goes on to its next line, unless the signal ended this one
            sys.stderr.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        raise
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        hints = [hint for part, hint in HINTS.items() if part in str(error)]
        if isinstance(error, ModuleNotFoundError) and error.name:
            hints.append(how_to_install(repository.name, [error.name]))
        for hint in hints:
            print(f"\nhero-plugin: {hint}", file=sys.stderr)
        return 1
    if wrapping is not None:
        check_wrapped(wrapping, f"{script.shown} built no model by {', '.join(repository.builders)}")
    return 0


def check_wrapped(wrapping: wraps.Wrapping, otherwise: str) -> None:
    """Raise ``UserError`` where no model was built; of a shell script's, another script may build it."""
    mark = os.environ.get(running.WRAPPED)
    if wrapping.model is not None:
        if mark:
            Path(mark).touch()
    elif mark:
        print(f"hero-plugin: {otherwise}", file=sys.stderr)
    else:
        raise UserError(f"{otherwise}: HERO was not in this run")
