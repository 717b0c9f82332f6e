"""Running a Python script in its place, as ``python SCRIPT ...`` would, with patches inside."""

from __future__ import annotations
import __future__

import ast
import importlib.util
import os
import sys
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.launch.patches import Patch, patched

INTERPRETERS = ("python", "python3")


@dataclass(frozen=True)
class Script:
    """A script of a repository, and its own arguments."""

    repository: Path
    path: Path
    """Absolute."""
    arguments: tuple[str, ...]
    as_module: bool = False
    """Started by ``-m``: the repository, not the script's folder, comes first on the path."""
    folder: Path | None = None
    """Where it runs; None: the repository's top."""

    @property
    def shown(self) -> str:
        """The path as it is written from where it runs."""
        return os.path.relpath(self.path, self.folder or self.repository)


def parse_command(repository: Path, words: Sequence[str], known: Sequence[str] = ()) -> Script:
    """The repository's own command line: ``[python] SCRIPT ARGUMENTS...`` or ``[python] -m MODULE ARGUMENTS...``.

    known: the repository's entry points, for the message.

    Raises:
        UserError: nothing to run, or no such script in the repository.
    """
    words = list(words)
    if words and Path(words[0]).name in INTERPRETERS:
        words = words[1:]
        while words[:1] == ["-u"]:
            words = words[1:]
    if not words:
        example = f", such as: -- python {known[0]} ..." if known else ""
        raise UserError(f"nothing to run: put the repository's own command line after --{example}")
    folder = None
    if words[0] == "-m" and len(words) > 1:
        path, as_module, rest = repository.joinpath(*words[1].split(".")).with_suffix(".py"), True, words[2:]
    else:
        path, as_module, rest = repository / words[0], False, words[1:]
        here = Path.cwd() / words[0]  # of a shell script that went into a folder of the repository
        if not path.is_file() and here.is_file() and repository in here.resolve().parents:
            path, folder = here, Path.cwd()
    if path.suffix != ".py" or not path.is_file():
        there_are = f"; there are {', '.join(known)}" if known else ""
        raise UserError(f"{repository} has no Python script {words[as_module]!r}{there_are}")
    return Script(repository, path.resolve(), tuple(rest), as_module, folder)


def run_script(script: Script, patches: Sequence[Patch] = ()) -> None:
    """Run it in this process, in the repository's folder. What it raises, ``SystemExit`` too, comes through."""
    with in_place(script), patched(patches):
        module = ModuleType("__main__")
        module.__file__ = str(script.path)
        sys.modules["__main__"] = module
        definitions, rest = compiled(script.path)
        exec(definitions, vars(module))
        for patch in patches:
            if patch.module == "__main__":
                patch.apply(module)
        exec(rest, vars(module))


@contextmanager
def in_place(script: Script) -> Iterator[None]:
    """The process as ``python SCRIPT`` would find it, the repository importable; everything is put back after."""
    before = (os.getcwd(), sys.argv, list(sys.path), sys.dont_write_bytecode, sys.modules.get("__main__"))
    os.chdir(script.folder or script.repository)
    sys.argv = [str(script.path) if script.as_module else script.shown, *script.arguments]
    first = [] if script.as_module else [str(script.path.parent)]
    # The repositories' shell scripts set PYTHONPATH to their top.
    sys.path[:0] = list(dict.fromkeys([*first, str(script.repository)]))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        folder, sys.argv, sys.path[:], sys.dont_write_bytecode, main = before
        os.chdir(folder)
        if main is not None:
            sys.modules["__main__"] = main


def compiled(path: Path) -> tuple[object, object]:
    """A script in two parts: all that it defines, and what it does where it asks ``__name__ == "__main__"``."""
    with tokenize.open(path) as stream:
        tree = ast.parse(stream.read(), str(path))
    start = next((place for place, statement in enumerate(tree.body) if _asks_for_main(statement)), len(tree.body))
    flags = 0
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            for name in statement.names:
                flags |= getattr(__future__, name.name).compiler_flag
    parts = (ast.Module(tree.body[:start], []), ast.Module(tree.body[start:], []))
    definitions, rest = (compile(part, str(path), "exec", flags, dont_inherit=True) for part in parts)
    return definitions, rest


def _asks_for_main(statement: ast.stmt) -> bool:
    if not (isinstance(statement, ast.If) and isinstance(statement.test, ast.Compare)):
        return False
    sides = [statement.test.left, *statement.test.comparators]
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)


def missing(module: str) -> bool:
    """Whether a top-level module is not installed."""
    try:
        return importlib.util.find_spec(module) is None
    except (ImportError, ValueError):
        return True
