"""``hero-plugin launch``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from hero_plugin import HeroConfig
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import ConfigError, parse, too_small
from hero_plugin.integrations.tools.launch.repositories import Repository, recognise, unknown
from hero_plugin.integrations.tools.launch.run import (
    WRAPPED,
    Script,
    how_to_install,
    is_shell,
    missing_modules,
    parse_command,
    run_script,
    run_shell,
    split,
)
from hero_plugin.integrations.tools.launch.shims import Shim
from hero_plugin.integrations.tools.launch.wrapping import (
    BY_HAND,
    Wrapping,
    as_flags,
    contradictions,
    in_flags,
    saved_config,
)
from hero_plugin.integrations.training.checkpoints import load_checkpoint_safely, supported

NO_GPU = "this torch finds no GPU: give the script its own flag for the CPU"
HINTS = {"already has HERO around it": BY_HAND, "with CUDA enabled": NO_GPU, "no NVIDIA driver": NO_GPU}
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
    flags, words = split(argv)
    config = read(flags, HeroConfig.paper() if "--paper" in flags else HeroConfig())
    if wrong := too_small(config, threads=0):
        raise UserError(*wrong)
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = config.repo.expanduser().resolve()
    repository = recognise(folder) if config.build is None else unknown(folder, config.build)
    if is_shell(words):
        return run_shell(folder, flags, words, dry_run=config.dry_run, plain=config.without_hero)
    script = parse_command(folder, words, repository.scripts)
    chosen, origin = choose(config, flags, repository, script)
    wrapping = None if chosen is None else Wrapping(chosen, origin, freeze_base=config.freeze_base)
    needed = [shim for shim in repository.repairs if shim.needed()]
    stand_ins = {name: module for shim in needed for name, module in shim.stand_ins().items()}
    missing = [name for name in missing_modules(script) if name not in stand_ins]
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
        raise UserError(in_flags(str(error))) from error


def choose(
    config: LaunchConfig, flags: Sequence[str], repository: Repository, script: Script
) -> tuple[HeroConfig | None, str]:
    """Return what to wrap with, None for nothing, and where that comes from: flags, over a checkpoint.

    Raises:
        UserError: flags that contradict each other, or the checkpoint.
    """
    path, known = repository.checkpoint(script.arguments), None
    if path is not None and (script.folder / path).is_file() and supported():
        known = saved_config(load_checkpoint_safely(script.folder / path))
    if config.without_hero:
        given = [word for word in flags if word in ("--paper", "--freeze-base")]
        given += [as_flags(config.hero)] if config.hero != HeroConfig() and "--paper" not in given else []
        if given:
            raise UserError(f"--without-hero contradicts {' '.join(given)}: leave one of them out")
        if known is not None:
            print(f"hero-plugin: {path} is HERO's, which a plain base that no edit wraps cannot load", file=sys.stderr)
        return None, "--without-hero"
    if known is None:
        return config.hero, "the defaults" if config.hero == HeroConfig() else "the flags"
    chosen = config.hero if config.paper else read(flags, known).hero
    if wrong := contradictions(chosen, known):
        paper = "--paper: " if config.paper else ""
        raise UserError(
            f"{paper}{as_flags(chosen, wrong)} contradicts {path}, whose HERO has {as_flags(known, wrong)}: "
            f"leave {'--paper' if paper else 'it'} out"
        )
    return chosen, str(path) if chosen == known else f"{path} and the flags"


def describe(repository: Repository, script: Script, wrapping: Wrapping | None, needed: Sequence[Shim]) -> str:
    """Say what would be run, and everything that is changed at run time."""
    patches = repository.patches(wrapping)
    hero = "none" if wrapping is None else f"{as_flags(wrapping.config)} (from {wrapping.origin})"
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


def run(repository: Repository, script: Script, wrapping: Wrapping | None, needed: Sequence[Shim]) -> int:
    """Run the script with everything in place. Its exceptions are shown as Python would show them."""
    for shim in needed:
        print(f"hero-plugin: shim {shim.name}: {shim.repair}", file=sys.stderr)
    try:
        run_script(script, [*repository.patches(wrapping), *(patch for shim in needed for patch in shim.patches)])
    except SystemExit as stopped:
        if stopped.code is None or isinstance(stopped.code, int):
            return stopped.code or 0
        print(stopped.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if WRAPPED in os.environ:  # a shell goes on to the next line of its script, unless the signal ended this one
            sys.stderr.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        raise
    except Exception as error:
        if isinstance(error, UserError):
            raise
        traceback.print_exc()
        missing = [error.name] if isinstance(error, ModuleNotFoundError) and error.name else []
        hints = [hint for part, hint in HINTS.items() if part in str(error)]
        for hint in [*hints, *(how_to_install(repository.name, [name]) for name in missing)]:
            print(f"\nhero-plugin: {hint}", file=sys.stderr)
        return 1
    if wrapping is not None:
        check_wrapped(wrapping, f"{script.shown} built no model by {', '.join(repository.builders)}")
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
