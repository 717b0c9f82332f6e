"""A repository's shell scripts: every ``python`` that they start is the launcher."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.launch.script import INTERPRETERS

SHELLS = ("bash", "sh", "zsh")
WRAPPED = "HERO_PLUGIN_WRAPPED"
"""Names a file, for the Python scripts of a shell script, that is there once one of them has wrapped a model."""


def is_shell(words: Sequence[str]) -> bool:
    """Whether a command line is a shell script's: ``bash scripts/train.sh ...``, or the script alone."""
    return bool(words) and (Path(words[0]).name in SHELLS or words[0].endswith(".sh"))


def run_shell(repository: Path, flags: Sequence[str], words: Sequence[str], *, dry_run: bool, plain: bool) -> int:
    """Run it in the repository's folder, with our own ``python`` first on the PATH. Returns its exit status.

    dry_run: the shell script runs, its Python scripts are only described. plain: without HERO.

    Raises:
        UserError: there is no such script, or HERO was in none of the Python scripts that it ran.
    """
    words = list(words) if Path(words[0]).name in SHELLS else ["bash", *words]
    script = next((word for word in words[1:] if not word.startswith("-")), None)
    if script is None or not (repository / script).is_file():
        raise UserError(f"{repository} has no shell script {script!r}")
    flags = [*flags, "--repo", str(repository)]  # the last one counts; a relative one would not hold where it runs
    with tempfile.TemporaryDirectory(prefix="hero-plugin-") as folder:
        for name in INTERPRETERS:
            interpreter = Path(folder, name)
            interpreter.write_text(interpreter_script(flags))
            interpreter.chmod(0o755)
        wrapped = Path(folder, "wrapped")
        environment = {**os.environ, "PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])}
        environment[WRAPPED] = str(wrapped)
        if dry_run:
            print(f"in {repository}: {shlex.join(words)}, whose python is hero-plugin launch:", flush=True)
        try:
            status = subprocess.run(words, cwd=repository, env=environment, check=False).returncode
        except FileNotFoundError as error:
            raise UserError(f"there is no {words[0]} on this machine") from error
        if not status and not plain and not dry_run and not wrapped.exists():
            raise UserError(f"none of the Python scripts that {script} started built a model: HERO was not in this run")
        return status


def interpreter_script(flags: Sequence[str]) -> str:
    """A ``python`` that launches what is a script, and is the real one for what cannot be one (``-c``, ``--version``).

    Other options before a script reach the launcher, too, which refuses those it does not know: the real one would
    train the plain base, and nobody would see it.
    """
    real = shlex.quote(sys.executable)
    ours = shlex.join([sys.executable, "-m", "hero_plugin.integrations.cli", "launch", *flags, "--"])
    return (
        "#!/bin/sh\n"
        'case "$1" in\n'
        f'  -|-c|-V|--version|-h|--help) exec {real} "$@" ;;\n'
        f'  *.py|-*) exec {ours} python "$@" ;;\n'
        f'  *) exec {real} "$@" ;;\n'
        "esac\n"
    )
