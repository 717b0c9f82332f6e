"""Dataclasses from JSON or TOML files, every field checked."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.named_sets import named_sets

Files = TypeVar("Files", bound="FileConfig")


class ConfigError(UserError):
    """Settings that cannot be used; the message names the flags."""


class FileConfig:
    """A config that names files and folders, and is checked as a whole. Its heirs are dataclasses.

    Attributes:
        sets: The fields that name sets of queries, each as PATH or NAME=PATH.
    """

    sets: ClassVar[tuple[str, ...]] = ()

    def mistakes(self) -> list[str]:
        """Return what is missing or impossible, one line each."""
        raise NotImplementedError

    def checked(self: Files) -> Files:
        """Return this config with absolute paths, once nothing is missing or impossible.

        Raises:
            ConfigError: All that is wrong, by flag.
        """
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
            absolute[name] = tuple(f"{key}={_absolute(path)}" for key, path in named_sets(given[name]))
        return replace(self, **absolute)  # type: ignore[type-var]

    def _inputs(self) -> Iterator[Path]:
        """Every file and folder that has to be there."""
        for name in self.sets:
            yield from (path for _, path in named_sets(getattr(self, name)))
        for name, value in vars(self).items():
            if name not in ("output", "config"):  # the latter was read already
                yield from (
                    path for path in (value if isinstance(value, tuple) else (value,)) if isinstance(path, Path)
                )


def _absolute(value: Any) -> Any:
    """Make a path absolute, or each of several; any other value stays as it is."""
    if isinstance(value, tuple):
        return tuple(map(_absolute, value))
    return Path(os.path.abspath(value.expanduser())) if isinstance(value, Path) else value


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON or (from Python 3.11 on) TOML file as a dict."""
    found = _read(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: must be a table of settings, got a {type(found).__name__}")
    return found


def _read(path: Path) -> Any:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    if path.suffix != ".toml":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    try:
        import tomllib
    except ImportError as error:
        raise ConfigError(f"{path}: TOML needs Python 3.11; write the same settings as JSON") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error


def filled(start: Any, values: Mapping[str, Any], source: str, prefix: str = "") -> Any:
    """A copy of the dataclass ``start`` with values from JSON, nested ones in nested dataclasses.

    Raises:
        ConfigError: a field that does not exist (with the nearest that does), or a value of the wrong kind.
    """
    known = {each.name: each for each in fields(start)}
    changes = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise ConfigError(f"{source}: no setting {prefix + name!r}{hint}")
        now = getattr(start, name)
        if is_dataclass(now):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {prefix + name} must be a table of settings, got {value!r}")
            value = filled(now, value, source, f"{prefix}{name}.")
        else:
            value = _converted(value, now, known[name].type, f"{source}: {prefix}{name}")
        changes[name] = value
    try:
        return replace(start, **changes)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


def _converted(value: Any, now: Any, kind: str, where: str) -> Any:
    """JSON has neither paths nor tuples, and writes 1 for 1.0."""
    if value is None:
        if "None" not in kind:
            raise ConfigError(f"{where} must not be null")
        return None
    if kind.startswith("tuple"):
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
            raise ConfigError(f"{where} must be a list of paths, got {value!r}")
        return tuple(Path(each) if "Path" in kind else each for each in values)
    if kind.startswith("Path"):
        if not isinstance(value, str):
            raise ConfigError(f"{where} must be a path, got {value!r}")
        return Path(value)
    if isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if now is not None and type(value) is not type(now):
        raise ConfigError(f"{where} must be {type(now).__name__}, got {value!r}")
    return value
