"""``hero-plugin launch``."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro

from hero_plugin import HeroConfig, config_of
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import parse
from hero_plugin.integrations.tools.launch.repositories import Repository, recognise, unknown
from hero_plugin.integrations.tools.launch.run import WRAPPED, Script, is_shell, parse_command, run_script, run_shell
from hero_plugin.integrations.tools.launch.shims import Shim
from hero_plugin.integrations.tools.launch.wrapping import Wrapping
from hero_plugin.integrations.training.checkpoints import load_checkpoint_safely, supported

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
    """Run ``hero-plugin launch [flags] -- COMMAND LINE``. Return the repository's exit status."""
    end = list(argv).index("--") if "--" in argv else len(argv)
    flags, words = argv[:end], argv[end + 1 :]
    config = parse(LaunchConfig, "launch", flags)
    folder = config.repo.expanduser().resolve()
    repository = recognise(folder) if config.build is None else unknown(folder, config.build)
    if is_shell(words):
        return run_shell(folder, flags, words, dry_run=config.dry_run, plain=config.without_hero)
    script = parse_command(folder, words, repository.scripts)
    chosen, origin = choose(config, flags, repository, script)
    wrapping = None if chosen is None else Wrapping(chosen, freeze_base=config.freeze_base)
    needed = [shim for shim in repository.repairs if shim.needed()]
    if config.dry_run:
        print(describe(repository, script, wrapping, origin, needed))
        return 0
    return run(repository, script, wrapping, needed)


def choose(
    config: LaunchConfig, flags: Sequence[str], repository: Repository, script: Script
) -> tuple[HeroConfig | None, str]:
    """Return what to wrap with, None for nothing, and where that comes from: flags, over a checkpoint."""
    path, known = repository.checkpoint(script.arguments), None
    if path is not None and (script.repository / path).is_file() and supported():
        saved = load_checkpoint_safely(script.repository / path)
        # Repositories keep the weights under names of their own.
        parts = [saved, *saved.values()] if isinstance(saved, Mapping) else []
        known = next((found for found in map(config_of, parts) if found is not None), None)
    if config.without_hero:
        if known is not None:
            print(f"hero-plugin: {path} has HERO's weights, which a plain base cannot load", file=sys.stderr)
        return None, "--without-hero"
    paper = over(HeroConfig.paper(), flags) if config.paper else None
    if known is None:
        chosen = paper or config.hero
        return chosen, "the defaults" if chosen == HeroConfig() else "the flags"
    if paper is not None:
        expected, found = (each.architecture(dim=0, ranks=True) for each in (paper, known))
        wrong = [
            f"{name} is {found.get(name)!r}, not {value!r}"
            for name, value in expected.items()
            if found.get(name) != value
        ]
        if wrong:
            raise UserError(f"--paper: {path} was trained with another HERO: {', '.join(wrong)}; leave --paper out")
    chosen = over(known, flags)
    return chosen, str(path) if chosen == known else f"{path} and the flags"


def over(start: HeroConfig, flags: Sequence[str]) -> HeroConfig:
    """Return the flags over another start than the defaults.

    The flags are parsed once more: from what the first parsing returned, nobody can tell a flag that was given at its
    default, and wins over a checkpoint, from one that was not given. And that parsing names the checkpoint.
    """
    return parse(LaunchConfig, "launch", flags, LaunchConfig(hero=start)).hero


def describe(
    repository: Repository, script: Script, wrapping: Wrapping | None, origin: str, needed: Sequence[Shim]
) -> str:
    """Say what would be run, and everything that is changed at run time."""
    patches = repository.patches(wrapping)
    lines = [
        f"repository  {repository.name}, {script.repository}",
        f"runs        {shlex.join(['python', script.shown, *script.arguments])}",
        f"HERO        {'none' if wrapping is None else summary(wrapping.config)} (from {origin})",
        "",
        "Changed at run time; no file of the repository is touched:" if patches or needed else "Nothing is changed.",
        *(f"  {patch.target}: {patch.why}" for patch in patches),
    ]
    for shim in needed:
        lines += [f"  shim {shim.name}: {shim.repair}", f"      without it: {shim.symptom}"]
        lines += [f"      changes {patch.target}: {patch.why}" for patch in shim.patches]
        lines += [f"      stands in for the module {name}" for name in shim.stand_ins()]
    spare = [shim.name for shim in repository.repairs if shim not in needed]
    if spare:
        lines += ["", f"Not needed on this machine: {', '.join(spare)}"]
    return "\n".join(lines)


def summary(config: HeroConfig) -> str:
    """Return the levels, and every field that is not the default."""
    usual = HeroConfig()
    changed = [each.name for each in fields(config) if getattr(config, each.name) != getattr(usual, each.name)]
    return ", ".join(f"{name}={getattr(config, name)}" for name in dict.fromkeys(("levels", *changed)))


def run(repository: Repository, script: Script, wrapping: Wrapping | None, needed: Sequence[Shim]) -> int:
    """Run the script with everything in place. Its exceptions are shown as Python would show them."""
    for shim in needed:
        print(f"hero-plugin: shim {shim.name}: {shim.repair}", file=sys.stderr)
        sys.modules.update(shim.stand_ins())
    try:
        run_script(script, [*repository.patches(wrapping), *(patch for shim in needed for patch in shim.patches)])
        if wrapping is not None:
            check_wrapped(wrapping, f"{script.shown} built no model by {', '.join(repository.builders)}")
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


def check_wrapped(wrapping: Wrapping, otherwise: str) -> None:
    """Raise ``UserError`` where no model was built; of a shell script's, another script may build it."""
    mark = os.environ.get(WRAPPED)
    if wrapping.model is not None:
        if mark:
            Path(mark).touch()
    elif mark:
        print(f"hero-plugin: {otherwise}", file=sys.stderr)
    else:
        raise UserError(f"{otherwise}: HERO was not in this run")
