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


def is_shell(words: Sequence[str]) -> bool:
    """Whether a command line is a shell script's: ``bash scripts/train.sh ...``, or the script alone."""
    return bool(words) and (Path(words[0]).name in SHELLS or words[0].endswith(".sh"))


def run_shell(repository: Path, flags: Sequence[str], words: Sequence[str], dry_run: bool) -> int:
    """Run it in the repository's folder, with our own ``python`` first on the PATH. Returns its exit status."""
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
        environment = {**os.environ, "PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])}
        if dry_run:
            print(f"in {repository}: {shlex.join(words)}, whose python is hero-plugin launch:", flush=True)
        try:
            return subprocess.run(words, cwd=repository, env=environment, check=False).returncode
        except FileNotFoundError as error:
            raise UserError(f"there is no {words[0]} on this machine") from error


def interpreter_script(flags: Sequence[str]) -> str:
    """A ``python`` that launches what is a script, and is the real one for everything else (``-c``, ``--version``)."""
    ours = shlex.join([sys.executable, "-m", "hero_plugin.integrations.cli", "launch", *flags, "--"])
    return (
        "#!/bin/sh\n"
        'case "$1" in\n'
        f'  *.py|-m|-u) exec {ours} python "$@" ;;\n'
        f'  *) exec {shlex.quote(sys.executable)} "$@" ;;\n'
        "esac\n"
    )
