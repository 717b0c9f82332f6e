"""The help of a command: an example, then its flags in groups, from the dataclass that they are parsed into.

A config may say two things more as class variables. ``required`` names the fields that have to be given although they
have a default. ``groups`` is ``{title: "names of fields"}``; fields of no group come after them.
"""

import ast
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

METAVARS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "{True,False}"}
NO_BREAK = "\xa0"
COLUMN = 26
"""Where the explanations start."""


@dataclass(frozen=True)
class Flag:
    """One flag, or one positional argument: as it is typed, and what it means."""

    typed: str
    text: str
    required: bool


def asks_for_help(argv: Sequence[str]) -> bool:
    """Return whether ``-h`` or ``--help`` is among the words before ``--``."""
    own = argv[: list(argv).index("--")] if "--" in argv else argv
    return not {"-h", "--help"}.isdisjoint(own)


def help_text(kind: type, name: str, example: str = "") -> str:
    """Return the help of ``hero-plugin NAME``, whose flags are the dataclass ``kind``, as wide as the terminal."""
    width = columns()
    sections = list(_sections(kind))
    needed = [" " + re.sub("{.{30,}}", "{...}", flag.typed) for _, flags in sections for flag in flags if flag.required]
    parts = ["\n".join(_packed([f"usage: hero-plugin {name}", *needed, " [flags]"], width, "", "   "))]
    parts += [textwrap.fill(part, width) for part in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]
    if example:
        parts.append(heading("example") + "\n" + shell_lines(f"hero-plugin {name} {example}", width))
    parts += ["\n".join([heading(title), *(_shown(each, width) for each in flags)]) for title, flags in sections]
    return "\n\n".join(parts).replace(NO_BREAK, " ")


def heading(text: str) -> str:
    """Return a line above a group, bold on a terminal."""
    return f"\033[1m{text}:\033[0m" if sys.stdout.isatty() else f"{text}:"


def columns() -> int:
    """Return how wide help is: as the terminal, up to what is easily read."""
    return min(shutil.get_terminal_size().columns, 100)


def listed(meanings: Mapping[str, str]) -> str:
    """Return names and what each means, one below the other."""
    column = max(map(len, meanings)) + 4
    lines = (f"  {name}".ljust(column) + meaning for name, meaning in meanings.items())
    return "\n".join(textwrap.fill(line, columns(), subsequent_indent=" " * column) for line in lines)


def shell_lines(command: str, width: int) -> str:
    """Break a command line between flags, so that a shell still reads it as one."""
    return " \\\n".join(_packed(re.split(r"(?= -)", command), width - 2, "  ", "     "))


def field_texts(kind: type) -> dict[str, str]:
    """Return the explanations below the fields of a dataclass, and of those that it inherits."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if is_dataclass(each):
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
            for line, below in pairwise(body):
                if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found[ast.unparse(line.target)] = " ".join(ast.literal_eval(below.value).split())
    return found


def _sections(kind: type) -> Iterator[tuple[str, list[Flag]]]:
    """Yield titles and flags: the groups, what is in none, and the flags of each nested dataclass."""
    entries = _entries(kind)
    groups: Mapping[str, str] = getattr(kind, "groups", {})
    for title, names in groups.items():
        if flags := [flag for name in names.split() for flag in entries.pop(name, ("", ()))[1]]:
            yield title, flags
    own = [flag for title, flags in entries.values() if not title for flag in flags]
    if own:
        own.sort(key=lambda flag: (flag.typed.startswith("-"), not flag.required))
        yield (f"{kind.title}'s own" if groups and hasattr(kind, "title") else "flags"), own
    yield from ((title.rstrip("."), flags) for title, flags in entries.values() if title)


def _entries(kind: type, given: Any = None, prefix: str = "") -> dict[str, tuple[str, list[Flag]]]:
    """Return (title, flags) by field: without a title for a flag, with one for a nested dataclass."""
    import tyro

    hints, texts = get_type_hints(kind, include_extras=True), field_texts(kind)
    positional, flat = (marker[int].__metadata__ for marker in (tyro.conf.Positional, tyro.conf.OmitArgPrefixes))
    found = {}
    for each in fields(kind):
        of, marks = _unwrapped(hints[each.name])
        named = [mark.name for mark in marks if isinstance(getattr(mark, "name", None), str)]
        name = named[0] if named else each.name
        default, text = _default(each, given), texts.get(each.name, "")
        if is_dataclass(of):
            inside = prefix if not name or set(flat) & set(marks) else f"{prefix}{name}."
            title = text or (of.__doc__ or "").partition(".")[0]
            nested = _entries(of, None if default is MISSING else default, inside)  # type: ignore[arg-type]
            found[each.name] = (title, [flag for _, flags in nested.values() for flag in flags])
            continue
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), None) or _metavar(of)
        if each.name in getattr(kind, "sets", ()):
            metavar = "[NAME=]PATH [...]"
        required = default is MISSING or each.name in getattr(kind, "required", ())
        said = [text.replace("``", ""), "(required)" if required else _said(default).replace(" ", NO_BREAK)]
        typed = metavar
        if not set(positional) & set(marks):
            flag, negative = (f"--{prefix}{no}{name}".replace("_", "-") for no in ("", "no-"))
            switch = f"{flag}, {negative}" if default else flag
            typed = switch if of is bool else f"{flag} {metavar}"
        found[each.name] = ("", [Flag(typed, " ".join(filter(None, said)), required)])
    return found


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without its annotations, and these."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _default(field: Field[Any], given: Any) -> Any:
    if given is not None:
        return getattr(given, field.name)
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _metavar(of: Any) -> str:
    of, _ = _unwrapped(of)
    if get_origin(of) in (Union, UnionType):
        kinds = [each for each in get_args(of) if each is not NoneType]
        if all(get_origin(each) is Literal for each in kinds):
            return f"{{{','.join(str(value) for each in kinds for value in get_args(each))}}}"
        return "|".join(map(_metavar, kinds))
    if get_origin(of) is Literal:
        return f"{{{','.join(map(str, get_args(of)))}}}"
    if get_origin(of) is tuple:
        one = _metavar(get_args(of)[0])
        return f"{one} [...]"
    return METAVARS.get(of, "TEXT")


def _said(default: Any) -> str:
    """Return what the help says of a default; nothing of those that add nothing."""
    if isinstance(default, bool):
        return "(default: on)" if default else ""
    if default is None or default == "" or default == ():
        return ""
    if (isinstance(default, Path) and default.is_absolute()) or "\n" in str(default):
        return ""
    if isinstance(default, tuple):
        return f"(default: {' '.join(map(str, default))})"
    return f"(default: {default:g})" if isinstance(default, float) else f"(default: {default})"


def _shown(flag: Flag, width: int) -> str:
    indent = " " * COLUMN
    kept: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    text = textwrap.fill(flag.text, width, initial_indent=indent, subsequent_indent=indent, **kept)
    left = "\n".join(_packed(re.split(r"(?<=,)", flag.typed), width, "  ", "      "))
    if not text or len(left) >= COLUMN - 1:
        return f"{left}\n{text}".rstrip()
    return left.ljust(COLUMN) + text[COLUMN:]


def _packed(parts: Sequence[str], width: int, indent: str, further: str) -> list[str]:
    """Return the parts in as few lines as they fit, in order."""
    lines = [indent + parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) > width:
            lines.append(further)
        lines[-1] += part
    return lines


SHELLS = ("bash", "zsh", "fish")
"""Those with a completion script."""
HELP = r"hero-plugin {command} --help 2>/dev/null | grep -oE '^  --[^ ,]+(, --[^ ,]+)?' | tr -d ' ' | tr ',' '\n'"
"""Prints the flags of a command, one a line."""


def completion_script(shell: str, commands: Iterable[str]) -> str:
    """Return what a shell, one of ``SHELLS``, reads to complete ``hero-plugin`` and the names of its commands."""
    names = sorted(commands)
    parts = {
        "@COMMANDS@": "\n".join(names),
        "@QUOTED@": " ".join(f"'{name}'" for name in names),
        "@HELP@": HELP.format(command="$command" if shell == "bash" else "${=command}"),
        "@FISH_HELP@": HELP.format(command="$words"),
    }
    script = (resources.files(__package__) / f"completion.{shell}").read_text("utf-8")
    for name, text in parts.items():
        script = script.replace(name, text)
    return script
