"""The contracts of ``.importlinter``: which part of the package may import which, lazy imports included."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.packaging.layout import copy_layout
from tests.resources import REPOSITORY


def lint(folder):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    command += [str(REPOSITORY / ".importlinter"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_arrows_run_one_way(tmp_path):
    copy_layout(tmp_path)
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_arrow_against_the_grain_is_found(tmp_path):
    package = copy_layout(tmp_path)
    with (package / "integrations" / "support" / "files.py").open("a") as file:
        file.write("\n\ndef late():\n    from hero_plugin.integrations.training import engine\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and "support.files -> " in done.stdout.replace("\n", " "), done.stdout
