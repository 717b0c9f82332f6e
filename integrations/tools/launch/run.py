"""Scripts of a repository, run in their place as ``python`` or ``bash`` would run them, with patches inside."""

import ast
import functools
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any
from unittest import mock

import wrapt

from hero_plugin.integrations.support.errors import UserError

INTERPRETERS = ("python", "python3")
SHELLS = ("bash", "sh", "zsh")
WRAPPED = "HERO_PLUGIN_WRAPPED"
"""Names a file, for the Python scripts of a shell script, that is there once one of them has wrapped a model."""


def split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the launcher's flags, and what comes after --.

    Raises ``UserError`` where a command line has no -- before it.
    """
    if "--" in argv:
        end = list(argv).index("--")
        return argv[:end], argv[end + 1 :]
    for place, word in enumerate(argv):
        if Path(word).name in (*INTERPRETERS, *SHELLS) or word.endswith((".py", ".sh")):
            right = shlex.join([*argv[:place], "--", *argv[place:]])
            raise UserError(f"put -- before the repository's own command line: hero-plugin launch {right}")
    return argv, []


@dataclass(frozen=True)
class Script:
    """A Python script of a repository, and its own arguments."""

    repository: Path
    path: Path
    """Absolute."""
    arguments: tuple[str, ...]
    folder: Path
    """Where it runs."""
    as_module: bool = False
    """Started by ``-m``: the repository, not the script's folder, comes first on the path."""

    @property
    def shown(self) -> str:
        """The path as it is written from where it runs."""
        return os.path.relpath(self.path, self.folder)

    @property
    def search_path(self) -> list[str]:
        """Where its imports are looked for first; the repositories' shell scripts set PYTHONPATH to their top."""
        first = [] if self.as_module else [str(self.path.parent)]
        return list(dict.fromkeys([*first, str(self.repository)]))


def parse_command(repository: Path, words: Sequence[str], known: Sequence[str] = ()) -> Script:
    """Parse the repository's own command line: ``[python] SCRIPT ARGUMENTS...`` or ``[python] -m MODULE ARGUMENTS...``.

    Raises ``UserError`` for nothing to run, or no such script in the repository; it names the ``known`` entry points.
    """
    words = list(words)
    if words and Path(words[0]).name in INTERPRETERS:
        words = words[1:]
        while words[:1] == ["-u"]:
            words = words[1:]
    if not words:
        example = f", such as: -- python {known[0]} ..." if known else ""
        raise UserError(f"nothing to run: put the repository's own command line after --{example}")
    if words[0].partition("=")[0].isidentifier() and "=" in words[0]:
        raise UserError(f"put {words[0]} before hero-plugin launch")
    folder = repository
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
    return Script(repository, path.resolve(), tuple(rest), folder, as_module)


def run_script(script: Script, patches: "Sequence[Patch]" = ()) -> None:
    """Run a script in this process, in the repository's folder. What it raises, ``SystemExit`` too, comes through."""
    with in_place(script), patched(patches):
        module = ModuleType("__main__")
        module.__file__ = str(script.path)
        sys.modules["__main__"] = module
        definitions, rest = compile_in_two(script.path)
        exec(definitions, vars(module))
        with ExitStack() as applied:
            for patch in patches:
                if patch.module == "__main__":
                    applied.enter_context(patch.of(module))
            exec(rest, vars(module))


@contextmanager
def in_place(script: Script) -> Iterator[None]:
    """Make the process what ``python SCRIPT`` would find, the repository importable; put everything back after."""
    before = (os.getcwd(), sys.argv, list(sys.path), sys.dont_write_bytecode, sys.modules.get("__main__"))
    os.chdir(script.folder)
    sys.argv = [str(script.path) if script.as_module else script.shown, *script.arguments]
    sys.path[:0] = script.search_path
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        folder, sys.argv, sys.path[:], sys.dont_write_bytecode, main = before
        os.chdir(folder)
        if main is not None:
            sys.modules["__main__"] = main


def compile_in_two(path: Path) -> list[CodeType]:
    """Compile all that a script defines, and what it does from ``if __name__ == "__main__"`` on."""
    with tokenize.open(path) as stream:
        statements = ast.parse(stream.read(), str(path)).body
    main = (
        place
        for place, each in enumerate(statements)
        if isinstance(each, ast.If) and "__name__" in [getattr(node, "id", "") for node in ast.walk(each.test)]
    )
    start = next(main, len(statements))
    # "from __future__ import ..." holds for the file: it goes before the second part, too.
    future = [each for each in statements if isinstance(each, ast.ImportFrom) and each.module == "__future__"]
    parts = (statements[:start], future + statements[start:])
    return [compile(ast.Module(part, []), str(path), "exec", dont_inherit=True) for part in parts]


def is_shell(words: Sequence[str]) -> bool:
    """Return whether a command line is a shell script's: ``bash scripts/train.sh ...``, or the script alone."""
    return bool(words) and (Path(words[0]).name in SHELLS or words[0].endswith(".sh"))


def run_shell(repository: Path, flags: Sequence[str], words: Sequence[str], *, dry_run: bool, plain: bool) -> int:
    """Run a shell script whose ``python`` is the launcher, in the repository's folder. Return its exit status.

    With ``dry_run`` it runs, too, and its Python scripts are only described. ``plain`` is without HERO. Raises
    ``UserError`` where there is no such script, or HERO was in none of the Python scripts that it ran.
    """
    words = list(words) if Path(words[0]).name in SHELLS else ["bash", *words]
    script = next((word for word in words[1:] if not word.startswith("-")), None)
    if script is None or not (repository / script).is_file():
        there_are = ", ".join(sorted(str(path.relative_to(repository)) for path in repository.rglob("*.sh"))) or "none"
        raise UserError(f"{repository} has no shell script {script!r}; there are {there_are}")
    flags = [*flags, "--repo", str(repository)]  # the last one counts; a relative one would not hold where it runs
    with tempfile.TemporaryDirectory(prefix="hero-plugin-") as folder:
        for name in INTERPRETERS:
            interpreter = Path(folder, name)
            interpreter.write_text(interpreter_script(flags))
            interpreter.chmod(0o755)
        wrapped = Path(folder, "wrapped")
        path = os.pathsep.join([folder, os.environ.get("PATH", "")])
        if dry_run:
            print(f"in {repository}: {shlex.join(words)}, whose python is hero-plugin launch:", flush=True)
        try:
            environment = {**os.environ, "PATH": path, WRAPPED: str(wrapped)}
            process = subprocess.Popen(words, cwd=repository, env=environment)
        except FileNotFoundError as error:
            raise UserError(f"there is no {words[0]} on this machine") from error
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # a terminal's Ctrl-C reached the script and what it runs, too: they end first
            raise
        if not status and not plain and not dry_run and not wrapped.exists():
            raise UserError(f"none of the Python scripts that {script} started built a model: HERO was not in this run")
        return status


def interpreter_script(flags: Sequence[str]) -> str:
    """Return a ``python`` that launches scripts, and is the real one for anything else (``-c``, ``--version``).

    Other options before a script reach the launcher, too, which refuses those it does not know: the real one would
    train the plain base, and nobody would see it.
    """
    real = shlex.quote(sys.executable)
    ours = shlex.join([sys.executable, "-m", "hero_plugin.integrations.cli", "launch", *flags, "--"])
    return f"""#!/bin/sh
case "$1" in
  -|-c|-V|--version|-h|--help) exec {real} "$@" ;;
  *.py|-*) exec {ours} python "$@" ;;
  *) exec {real} "$@" ;;
esac
"""


PACKAGES = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "ffmpeg": "ffmpeg-python",
    "clip": "git+https://github.com/openai/CLIP.git",
}
"""Modules whose package has another name: what to give pip."""


def missing_modules(script: Script) -> list[str]:
    """Return the modules at which a script would stop, one after the other, because they are not installed.

    Followed are the imports that always run, through the repository's own files, of which none is run: one inside a
    function, an ``if`` or a ``try`` may have its reasons.
    """
    todo, seen, found = [script.path], set(), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, folders in imported(path, script.search_path):
            own = module_files(name, folders)
            todo += [each for each in own or () if each.suffix == ".py"]
            top = name.partition(".")[0]
            if own is None and top not in sys.modules and importlib.util.find_spec(top) is None:
                found.add(top)
    # A script may add a folder of the repository to its path.
    inside = {name for name in found for end in (".py", "/*.py") if any(script.repository.rglob(name + end))}
    return sorted(found - inside)


def imported(path: Path, top: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield what the top level of a file imports, by dotted name, and the folders where its first part may be."""
    try:
        statements = ast.parse(path.read_bytes()).body
    except SyntaxError:  # the script's own error, once it gets there
        return
    for each in statements:
        if isinstance(each, ast.Import):
            yield from ((alias.name, top) for alias in each.names)
        elif isinstance(each, ast.ImportFrom):
            folders = [str(path.parents[each.level - 1])] if each.level else top
            # What is taken from a package may be a module of it.
            yield from ((f"{each.module}.{alias.name}".removeprefix("None."), folders) for alias in each.names)


def module_files(name: str, folders: Sequence[str]) -> list[Path] | None:
    """Return the files that importing a dotted name runs, or None where it is not in these folders."""
    found: list[Path] = []
    for place, part in enumerate(name.split(".")):
        spec = PathFinder.find_spec(part, folders)
        if spec is None:
            return found if place else None
        found += [Path(spec.origin)] if spec.origin else []
        folders = list(spec.submodule_search_locations or ())
    return found


def how_to_install(code: str, modules: Sequence[str]) -> str:
    """Say how to install what a repository's code needs."""
    packages = " ".join(PACKAGES.get(name, name) for name in modules)
    return f"{code}'s code needs {', '.join(modules)}, not installed here: pip install {packages}"


@dataclass(frozen=True)
class Patch:
    """One name that is replaced at run time; no file changes."""

    module: str
    """Where it is defined, as it is imported; ``__main__`` is the script itself."""
    name: str
    """What it is called there; of a class, ``Class.method``."""
    replace: Callable[[Any], Any]
    """The original -> what takes its place."""
    why: str = ""

    @property
    def target(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"

    def of(self, namespace: Any) -> AbstractContextManager[Any]:
        """Return what replaces the name in a module while it is entered; nothing if the module has no such name."""
        *owners, last = self.name.split(".")
        owner = namespace
        for each in owners:
            owner = getattr(owner, each, None)
        if not hasattr(owner, last):
            return nullcontext()
        original = vars(owner).get(last, getattr(owner, last))  # a static method as the class has it
        return mock.patch.object(owner, last, self.replace(original))


def around(call: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return the ``replace`` of a patch after which ``call(original, ...)`` runs where ``original(...)`` did."""

    def replace(original: Any) -> Any:
        @functools.wraps(original, updated=())  # a class as well as a function
        def called(*args: Any, **kwargs: Any) -> Any:
            return call(original, *args, **kwargs)

        return called

    return replace


# Puts wrapt's finder on the import path once, so that patched() leaves the path as it found it.
wrapt.register_post_import_hook(lambda module: None, __name__)


@contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """Patch every module that is loaded inside the block, or is already; undo everything after it."""
    active = True

    def apply(patch: Patch, module: ModuleType) -> None:
        if active:  # wrapt cannot take a hook back
            applied.enter_context(patch.of(module))

    with ExitStack() as applied:
        try:
            for patch in patches:
                if patch.module != "__main__":
                    wrapt.register_post_import_hook(functools.partial(apply, patch), patch.module)
            yield
        finally:
            active = False
