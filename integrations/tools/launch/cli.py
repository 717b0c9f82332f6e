"""``hero-plugin launch``."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro

from hero_plugin import HeroConfig
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import parse
from hero_plugin.integrations.tools.launch.patches import Patch
from hero_plugin.integrations.tools.launch.repositories import Repository, config_in, recognise, unknown
from hero_plugin.integrations.tools.launch.run import WRAPPED, Script, is_shell, parse_command, run_script, run_shell
from hero_plugin.integrations.tools.launch.shims import Shim, present
from hero_plugin.integrations.tools.launch.wrapping import Wrapping
from hero_plugin.integrations.training.checkpoints import load_checkpoint_safely, supported

# What ``--dry-run`` says.


def describe(
    repository: Repository,
    script: Script,
    config: HeroConfig | None,
    origin: str,
    patches: Sequence[Patch],
    shims: Sequence[Shim],
) -> str:
    """What would be run, and everything that is changed at run time."""
    lines = [
        f"repository  {repository.name}, {script.repository}",
        f"runs        {shlex.join(['python', script.shown, *script.arguments])}",
        f"HERO        {'none' if config is None else summary(config)} (from {origin})",
        "",
        "Changed at run time; no file of the repository is touched:" if patches or shims else "Nothing is changed.",
        *(f"  {patch.target}: {patch.why}" for patch in patches),
    ]
    for shim in shims:
        lines += [f"  shim {shim.name}: {shim.repair}", f"      without it: {shim.symptom}"]
        lines += [f"      changes {patch.target}: {patch.why}" for patch in shim.patches]
        lines += [f"      stands in for the module {name}" for name in shim.stand_ins()]
    spare = [shim.name for shim in repository.shims if shim not in shims]
    if spare:
        lines += ["", f"Not needed on this machine: {', '.join(spare)}"]
    return "\n".join(lines)


def summary(config: HeroConfig) -> str:
    """Levels, and every field that is not the default."""
    usual = HeroConfig()
    changed = [field.name for field in fields(config) if getattr(config, field.name) != getattr(usual, field.name)]
    return ", ".join(f"{name}={getattr(config, name)}" for name in dict.fromkeys(("levels", *changed)))


PACKAGES = {"sklearn": "scikit-learn", "yaml": "pyyaml", "cv2": "opencv-python", "PIL": "pillow"}
"""Modules whose package has another name."""


@dataclass
class LaunchConfig:
    """Run a repository's own training or evaluation, unchanged, with HERO around its model and its criterion.

    The repository's command line comes after --: its script, seen from its top folder, and that script's arguments; or
    a shell script that starts it. HERO's flags are those of HeroConfig. A checkpoint knows its own: evaluating and
    resuming need none.
    """

    repo: Path = Path(".")
    """The clone: EMB, Moment-DETR, QD-DETR, TR-DETR or Lighthouse."""
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
    """``hero-plugin launch [flags] -- COMMAND LINE``: the repository's exit status."""
    flags, words = split(argv)
    config = parse(LaunchConfig, "launch", flags)
    folder = config.repo.expanduser().resolve()
    repository = recognise(folder) if config.build is None else unknown(folder, config.build)
    if is_shell(words):
        return run_shell(folder, flags, words, dry_run=config.dry_run, plain=config.without_hero)
    script = parse_command(folder, words, repository.scripts)
    chosen, origin = choose(config, flags, repository, script)
    wrapping = None if chosen is None else Wrapping(chosen, freeze_base=config.freeze_base)
    shims = present(repository.shims)
    if config.dry_run:
        print(describe(repository, script, chosen, origin, repository.patches(wrapping), shims))
        return 0
    return run(repository, script, wrapping, shims)


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our flags, and the repository's command line after ``--``."""
    words = list(argv)
    if "--" in words:
        place = words.index("--")
        return words[:place], words[place + 1 :]
    return words, []


def choose(
    config: LaunchConfig, flags: Sequence[str], repository: Repository, script: Script
) -> tuple[HeroConfig | None, str]:
    """What to wrap with, None for nothing, and where that comes from: flags, over a checkpoint."""
    path = repository.checkpoint(script.arguments)
    known = None
    if path is not None and (script.repository / path).is_file():
        known = read_config(script.repository / path)
    if config.without_hero:
        if known is not None:
            print(f"hero-plugin: {path} has HERO's weights, which a plain base cannot load", file=sys.stderr)
        return None, "--without-hero"
    if known is not None:
        if config.paper:
            _check_paper(known, flags, str(path))
        chosen = over(known, flags)
        return chosen, str(path) if chosen == known else f"{path} and the flags"
    chosen = over(HeroConfig.paper(), flags) if config.paper else config.hero
    return chosen, "the defaults" if chosen == HeroConfig() else "the flags"


def _check_wrapped(wrapping: Wrapping, otherwise: str) -> None:
    """Raise ``UserError`` where no model was built; of a shell script's, another script may build it."""
    mark = os.environ.get(WRAPPED)
    if wrapping.model is not None:
        if mark:
            Path(mark).touch()
    elif mark:
        print(f"hero-plugin: {otherwise}", file=sys.stderr)
    else:
        raise UserError(f"{otherwise}: HERO was not in this run")


def _check_paper(known: HeroConfig, flags: Sequence[str], path: str) -> None:
    """Raise ``UserError`` where a checkpoint's HERO is not the paper's that the flags ask for."""
    asked, there = (each.architecture(dim=0, ranks=True) for each in (over(HeroConfig.paper(), flags), known))
    told = [
        f"{name} is {there.get(name)!r}, not {value!r}" for name, value in asked.items() if there.get(name) != value
    ]
    if told:
        raise UserError(f"--paper: {path} was trained with another HERO: {', '.join(told)}; leave --paper out")


def over(start: HeroConfig, flags: Sequence[str]) -> HeroConfig:
    """The flags over another start than the defaults."""
    return parse(LaunchConfig, "launch", flags, LaunchConfig(hero=start)).hero


def read_config(path: Path) -> HeroConfig | None:
    """The HERO that a checkpoint was trained with; None for a plain base's, or where torch cannot read it safely."""
    return config_in(load_checkpoint_safely(path)) if supported() else None


def run(repository: Repository, script: Script, wrapping: Wrapping | None, shims: Sequence[Shim]) -> int:
    """Run the script with everything in place. Its exceptions are shown as Python would show them."""
    for shim in shims:
        print(f"hero-plugin: shim {shim.name}: {shim.repair}", file=sys.stderr)
        sys.modules.update(shim.stand_ins())
    patches = [*repository.patches(wrapping), *(patch for shim in shims for patch in shim.patches)]
    try:
        run_script(script, patches)
        if wrapping is not None:
            _check_wrapped(wrapping, f"{script.shown} built no model by {', '.join(repository.builders)}")
    except SystemExit as stopped:
        if stopped.code is None or isinstance(stopped.code, int):
            return stopped.code or 0
        print(stopped.code, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, UserError):
        raise
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = PACKAGES.get(error.name, error.name)
            print(f"\nhero-plugin: {repository.name}'s code needs {error.name}: pip install {package}", file=sys.stderr)
        return 1
    return 0
