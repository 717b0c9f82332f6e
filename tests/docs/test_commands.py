"""The commands that pages and the reference name exist, and the reference has all of them."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

from hero_plugin.integrations.cli import COMMANDS
from tests.docs.pages import DOCS
from tests.resources import REPOSITORY

CLI = (DOCS / "reference" / "cli.md").read_text("utf-8")
README = REPOSITORY / "README.md"
ASKED = re.findall(r"```\{command-help\} (.+)", CLI)


def extension(name: str):
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_command_once():
    assert sorted(ASKED) == sorted(set(COMMANDS) - {"version"})


def test_every_vocab_command_is_on_its_page():
    page = (DOCS / "guide" / "vocabulary.md").read_text("utf-8")
    named = set(re.findall(r"hero-plugin (vocab [\w-]+)", page))
    assert named == {name for name in COMMANDS if name.startswith("vocab ")}


@pytest.mark.parametrize("command", ["", *ASKED])
def test_the_reference_shows_what_help_prints(command):
    pytest.importorskip("sphinx")
    shown = extension("command_help")
    text = shown.help_of(command)
    assert f"hero-plugin {command}" in text.splitlines()[0]
    assert max(map(len, text.splitlines())) <= shown.WIDTH


@pytest.mark.parametrize("path", re.findall(r"settings-table\} (\S+)", (DOCS / "reference" / "config.md").read_text()))
def test_every_setting_is_explained(path):
    pytest.importorskip("sphinx")
    rows = extension("settings_table").rows_of(path)
    assert rows and all(name and meaning for name, _, meaning in rows)


def test_the_library_reference_has_every_public_name():
    import hero_plugin

    page = (DOCS / "reference" / "api.md").read_text("utf-8")
    listed = re.findall(r"\.\. auto\w+:: (\w+)", page)
    assert set(hero_plugin.__all__) <= set(listed)
    assert all(hasattr(hero_plugin, name) for name in listed)


def commands_on(page) -> list[tuple[str, list[str]]]:
    """Return each ``hero-plugin`` command of a page's shell blocks with the flags that it is given."""
    found = []
    for language, block in re.findall(r"^```(\S*)\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
        if language:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = line.partition("#")[0].partition("hero-plugin ")[2].partition(" -- ")[0].split()
            names = [" ".join(words[:length]) for length in (2, 1)]
            name = next((each for each in names if each in COMMANDS), "")
            if name:
                found.append((name, [word.partition("=")[0] for word in words if word.startswith("--")]))
    return found


@pytest.mark.parametrize("page", [README, *sorted(DOCS.rglob("*.md"))], ids=lambda path: str(path.name))
def test_commands_have_the_flags_that_pages_give_them(page):
    pytest.importorskip("sphinx")
    shown = extension("command_help")
    for name, flags in commands_on(page):
        known = set(re.findall(r"(?<![\w-])--[\w.-]+", shown.help_of(name)))
        assert set(flags) - {"--help"} <= known, f"hero-plugin {name}"
