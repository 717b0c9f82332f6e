"""Completion, in the shells themselves: each is asked what it would offer at a TAB."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hero_plugin.integrations import cli
from hero_plugin.integrations.support.flags import SHELLS, completion_script

COMMANDS = ("train emb", "train qd_detr", "eval", "table", "bench", "bench eval")
HELP = """usage: hero-plugin COMMAND [flags]

  --run PATH [...]        Folder of the run, unlike --other.
  --bridge, --no-bridge   Read words. (default: on)
                          --no-flag of this
"""
ASK = {
    "bash": """source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _hero_plugin
        printf '%s\\n' "${{COMPREPLY[@]}}" """,
    "zsh": """compdef() {{ }}; compadd() {{ print -l -- ${{(M)next:#$PREFIX*}} }}; _files() {{ }}
        source {script}; words=({words}); CURRENT=$#words; PREFIX=${{words[-1]}}; _hero_plugin""",
    "fish": """source {script}; complete -C '{line}' | string split -f 1 \\t""",
}


@pytest.fixture(params=SHELLS)
def ask(request, tmp_path):
    """A function that returns what a shell offers behind a line, and how often it asked for help in between."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "hero-plugin"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\ncat <<'END'\n{HELP}END\n")
    program.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(completion_script(shell, COMMANDS))

    def offered(*words: str) -> set[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        code = ASK[shell].format(script=script, words=quoted, line=" ".join(words))
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "LC_ALL": "C"}
        flags = {"zsh": ["-f"], "bash": ["--norc"], "fish": ["--no-config"]}[shell]
        done = subprocess.run([shell, *flags, "-c", code], capture_output=True, text=True, env=environment, check=False)
        assert not done.stderr, done.stderr
        return set(done.stdout.split())

    offered.asked = tmp_path / "asked"
    return offered


def test_commands_are_completed_word_by_word(ask):
    assert ask("hero-plugin", "") == {"train", "eval", "table", "bench"}
    assert ask("hero-plugin", "ta") == {"table"}
    assert ask("hero-plugin", "train", "") == {"emb", "qd_detr"}
    assert ask("hero-plugin", "train", "q") == {"qd_detr"}
    assert not ask.asked.exists()  # the program was not started for it


def test_flags_are_those_of_the_commands_help(ask):
    assert ask("hero-plugin", "eval", "--") == {"--run", "--bridge", "--no-bridge", "--help"}
    assert ask("hero-plugin", "bench", "eval", "--r") == {"--run"}
    assert ask("hero-plugin", "train", "emb", "--run", "x", "--b") == {"--bridge"}
    assert ask.asked.read_text().splitlines() == ["eval --help", "bench eval --help", "train emb --help"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_a_script_with_every_command(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)
    assert "@" not in printed.replace("[@]", "").replace("(@)", "").replace("{@", "")


def test_printing_a_script_loads_no_torch(tmp_path):
    code = "import sys; from hero_plugin.integrations.cli import main; main(['completion', 'bash'])"
    code += "; print('torch' in sys.modules, file=sys.stderr)"
    path = os.pathsep.join([str(Path(cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=True
    )
    assert done.stderr == "False\n"


def test_a_shell_that_is_not_known_is_told(capsys):
    assert cli.main(["completion", "tcsh"]) == 2
    assert "one of bash, zsh, fish; got tcsh" in capsys.readouterr().err
    assert cli.main(["completion", "--help"]) == 0
    assert "source <(hero-plugin completion zsh)" in capsys.readouterr().out
