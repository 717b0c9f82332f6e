"""Dataclasses from JSON or TOML files, every field checked."""

import difflib
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.process import Rank

Config = TypeVar("Config")
Files = TypeVar("Files", bound="FileConfig")


class ConfigError(UserError):
    """Settings that cannot be used; the message names the flags."""


class FileConfig(ABC):
    """A config that names files and folders, and is checked as a whole. Its heirs are dataclasses.

    Attributes:
        sets: The fields that name sets of queries, each as PATH or NAME=PATH.
        required: The fields that have to be given, by a flag or by what ``start`` returns.
        groups: {title: names of fields}, for the help.
    """

    sets: ClassVar[tuple[str, ...]] = ()
    required: ClassVar[tuple[str, ...]] = ()
    groups: ClassVar[Mapping[str, str]] = {}

    def start(self: Files) -> Files | None:
        """Return what the flags stand over, where these settings say that it is not the defaults."""
        return None

    def missing(self) -> list[str]:
        """Return what has to be given and is not, one line each; a run to resume that is not there comes first."""
        given = vars(self)
        wrong = [f"--{name.replace('_', '-')} is missing" for name in self.required if not given[name]]
        if given["resume"] and (output := given["output"]) and not (output / "config.json").is_file():
            beside = [file.parent.name for file in output.parent.glob("*/config.json")]
            near = difflib.get_close_matches(output.name, beside, n=1)
            hint = f"did you mean {output.with_name(near[0])}?" if near else "leave --resume out to start one"
            return [f"--resume: no run in {output}; {hint}", *wrong]
        return wrong

    @abstractmethod
    def mistakes(self) -> list[str]:
        """Return what is missing or impossible, one line each."""

    def checked(self: Files) -> Files:
        """Return this config with absolute paths; ``ConfigError`` with all that is missing or impossible, by flag."""
        given = vars(self)
        wrong, inputs = self.mistakes(), list(self._inputs())
        wrong += [f"{path}: no such file or folder" for path in inputs if not path.exists()]
        if given["overwrite"] and given["output"]:
            output = _absolute(given["output"])
            wrong += [
                f"--overwrite would delete {path}, which is read: choose another --output"
                for path in inputs
                if output in (_absolute(path), *_absolute(path).parents)
            ]
        if wrong:
            raise ConfigError("\n".join(wrong))
        absolute = {name: _absolute(value) for name, value in given.items() if name != "config"}
        for name in self.sets:
            absolute[name] = tuple(f"{key}={_absolute(path)}" for key, path in parse_named_paths(given[name]))
        return replace(self, **absolute)  # type: ignore[type-var]

    def _inputs(self) -> Iterator[Path]:
        """Every file and folder that has to be there."""
        for name in self.sets:
            yield from (path for _, path in parse_named_paths(getattr(self, name)))
        for name, value in vars(self).items():
            if name not in ("output", "config"):  # the latter was read already
                values = value if isinstance(value, tuple) else (value,)
                yield from (path for path in values if isinstance(path, Path))


def parse_named_paths(given: Iterable[str]) -> list[tuple[str, Path]]:
    """Return (name, path) of sets given as NAME=PATH, or as PATH with the file's name.

    A name has no slash: ``lr=0.1/test.json`` is a set named lr, ``./lr=0.1/test.json`` a file. And no other "=" than
    the one behind it, so that a name with its path can be read again.
    """
    pairs = []
    for text in given:
        name, equals, path = text.partition("=")
        named = equals and not any(slash in name for slash in (os.sep, os.altsep) if slash)
        pairs.append((name, Path(path)) if named else (Path(text).stem.replace("=", "-"), Path(text)))
    return pairs


def too_small(config: Any, **least: int) -> list[str]:
    """Return one line for each field that is below its least value, by flag."""
    return [
        f"--{name.replace('_', '-')} must be at least {lowest}, got {getattr(config, name)}"
        for name, lowest in least.items()
        if getattr(config, name) < lowest
    ]


def _absolute(value: Any) -> Any:
    """Make a path absolute, or each of several; any other value stays as it is."""
    if isinstance(value, tuple):
        return tuple(map(_absolute, value))
    return Path(os.path.abspath(value.expanduser())) if isinstance(value, Path) else value


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON or (from Python 3.11 on) TOML file as a dict."""
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
        found = json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    except ImportError as error:
        raise ConfigError(f"{path}: TOML needs Python 3.11; write the same settings as JSON") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    except ValueError as error:  # tomllib.TOMLDecodeError, where there is a tomllib
        raise ConfigError(f"{path}: not TOML ({error})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: must be a table of settings, got a {type(found).__name__}")
    return found


def filled(start: Config, values: Mapping[str, Any], source: str) -> Config:
    """Return a copy of the dataclass ``start`` with values from JSON, nested ones in nested dataclasses.

    Raises:
        ConfigError: All fields that do not exist (with the nearest that does) and all values of the wrong kind.
    """
    wrong: list[str] = []
    merged = to_json(_merged(start, values, wrong))
    try:  # Strict, and from JSON: lists become tuples, text paths, 1 becomes 1.0; nothing else changes its type.
        made = _adapter(type(start)).validate_json(merged, strict=True)
    except ValidationError as error:
        wrong += map(_said, error.errors())
    if wrong:
        raise ConfigError("\n".join(f"{source}: {each}" for each in wrong))
    return made


_adapter: Any = cache(TypeAdapter)


def _merged(start: Any, values: Mapping[str, Any], wrong: list[str], prefix: str = "") -> dict[str, Any]:
    merged = {each.name: getattr(start, each.name) for each in fields(start)}
    for name, value in values.items():
        if name not in merged:
            near = difflib.get_close_matches(name, merged, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(merged)}"
            wrong.append(f"no setting {prefix + name!r}; {hint}")
        elif is_dataclass(now := merged[name]) and isinstance(value, Mapping):
            merged[name] = _merged(now, value, wrong, f"{prefix}{name}.")
        else:
            merged[name] = [value] if isinstance(now, tuple) and isinstance(value, str) else value
    return merged


def _said(error: Any) -> str:
    what = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # of a __post_init__, which names its field
        return what
    for theirs, ours in (
        ("Input should be", "must be"),
        ("a valid array", "a list"),
        ("an object", "a table of settings"),
    ):
        what = what.replace(theirs, ours)
    return f"{'.'.join(map(str, error['loc']))} {what}, got {error['input']!r}"


def parse(kind: type[Config], name: str, argv: Sequence[str], default: Config | None = None) -> Config:
    """Return the flags of ``hero-plugin NAME`` as a config. ``--help`` and mistyped flags are tyro's business.

    Flags such as --resume choose what all flags stand over; then they are read once more, over that. Values that a
    config refuses are a ``ConfigError``.
    """
    import tyro

    extra: dict[str, Any] = {} if default is None else {"default": default}
    # Under torchrun every process reads the same flags: one of them says what is wrong, or shows the help.
    shown = (sys.stdout, sys.stderr) if Rank.of_this_process().leads else (io.StringIO(), io.StringIO())
    with redirect_stdout(shown[0]), redirect_stderr(shown[1]):
        try:
            config: Any = tyro.cli(kind, prog=f"hero-plugin {name}", args=list(argv), **extra)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    start: Any = config.start() if default is None and isinstance(config, FileConfig) else None
    return config if start is None else parse(kind, name, argv, start)
