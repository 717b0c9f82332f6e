"""A script runs as ``python SCRIPT`` would run it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.launch.run import Patch, parse_command, run_script

PROBE = '''"""What it says of itself."""
from __future__ import annotations
import json, os, sys
import beside, top

def speak(word: Undefined) -> str:
    return word

if __name__ == "__main__":
    found = {"argv": sys.argv, "file": os.path.basename(__file__), "doc": __doc__, "cwd": os.getcwd(),
             "name": __name__, "main": sys.modules["__main__"].speak is speak, "said": speak("hello")}
    with open(sys.argv[1], "w") as stream:
        json.dump(found, stream)
'''


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "probe.py").write_text(PROBE)
    (folder / "scripts" / "beside.py").write_text("")
    (folder / "top.py").write_text("")
    yield folder.resolve()
    for name in ("beside", "top"):
        sys.modules.pop(name, None)


def probed(path):
    import json

    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "words", [["python", "scripts/probe.py"], ["scripts/probe.py"], ["python3", "-u", "scripts/probe.py"]]
)
def test_as_python_runs_it(repository, tmp_path, words):
    run_script(parse_command(repository, [*words, str(tmp_path / "ours"), "--flag=1"]))
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "scripts/probe.py", str(tmp_path / "pythons"), "--flag=1"]
    subprocess.run(command, cwd=repository, env=environment, check=True)
    ours, pythons = probed(tmp_path / "ours"), probed(tmp_path / "pythons")
    assert ours.pop("argv")[2:] == pythons.pop("argv")[2:] == ["--flag=1"]
    assert ours == pythons


def test_as_a_module(repository, tmp_path):
    (repository / "scripts" / "probe.py").write_text(PROBE.replace("import beside, top", "import top"))
    run_script(parse_command(repository, ["python", "-m", "scripts.probe", str(tmp_path / "ours")]))
    assert probed(tmp_path / "ours")["name"] == "__main__"


def test_what_the_script_itself_defines_is_patched_before_it_is_used(repository, tmp_path):
    patch = Patch("__main__", "speak", lambda speak: lambda word: speak(word).upper(), "")
    run_script(parse_command(repository, ["scripts/probe.py", str(tmp_path / "ours")]), [patch])
    assert probed(tmp_path / "ours")["said"] == "HELLO"


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "1 / 0", ""])
def test_everything_is_put_back(repository, end):
    (repository / "end.py").write_text(f"import sys\nsys.path.append('nowhere')\n{end}\n")
    before = (os.getcwd(), list(sys.argv), list(sys.path), sys.modules["__main__"], sys.dont_write_bytecode)
    try:
        run_script(parse_command(repository, ["end.py"]))
    except (SystemExit, ZeroDivisionError) as error:
        assert end and (not isinstance(error, SystemExit) or error.code == 3)
    assert before == (os.getcwd(), sys.argv, sys.path, sys.modules["__main__"], sys.dont_write_bytecode)


def test_nothing_is_written_into_the_repository(repository, tmp_path):
    before = sorted(repository.rglob("*"))
    run_script(parse_command(repository, ["scripts/probe.py", str(tmp_path / "ours")]))
    assert sorted(repository.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "put the repository's own command line after --"),
        (["python"], "put the repository's own command line after --"),
        (["scripts/prob.py"], "has no Python script 'scripts/prob.py'"),
        (["-m", "scripts.prob"], "has no Python script 'scripts.prob'"),
        (["scripts"], "has no Python script"),
    ],
)
def test_mistakes(repository, words, message):
    with pytest.raises(UserError, match=message):
        parse_command(repository, words)
