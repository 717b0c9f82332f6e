"""Places in the code that pages name: files, names in them, and the imports that moved."""

from __future__ import annotations

import importlib
import importlib.util
import re

import pytest

from tests.docs.pages import DOCS
from tests.resources import REPOSITORY

ARCHITECTURE = (DOCS / "concepts" / "architecture.md").read_text("utf-8")
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
MOVED = re.findall(r"^\| `(hero_plugin\.[\w.]+)`.* \| `(hero_plugin\.[\w.]+)` \|$", CHANGELOG, re.MULTILINE)


@pytest.mark.parametrize(
    "path, name", re.findall(r"`((?:hero_plugin|integrations)/[\w/]+\.py)`: `(\w+)`", ARCHITECTURE)
)
def test_what_the_page_finds_is_there(path, name):
    assert re.search(rf"^ *(class |def )?{name}\b", (REPOSITORY / path).read_text("utf-8"), re.MULTILINE)


def test_the_table_of_the_core_has_every_file():
    core = {path.name for path in (REPOSITORY / "hero_plugin").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", ARCHITECTURE.partition("## The core")[2].partition("##")[0])) == core


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: path.name)
def test_files_that_a_page_names_exist(page):
    for path in re.findall(r"`((?:hero_plugin|adapters|integrations|tests)/[\w/]+\.\w+)`", page.read_text("utf-8")):
        assert (REPOSITORY / path).exists(), path


@pytest.mark.parametrize("old, new", MOVED)
def test_what_moved_is_where_the_changelog_says(old, new):
    importlib.import_module(new)
    parent = importlib.util.find_spec(old.rpartition(".")[0])
    assert parent is None or parent.submodule_search_locations is None or importlib.util.find_spec(old) is None


def test_the_changelog_has_moves():
    assert len(MOVED) > 10
