"""The form of the pages: short lines, narrow tables, links that lead somewhere, each figure in one place."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.pages import DOCS
from tests.resources import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
GUIDES = sorted((DOCS / "guide").glob("*.md"))
GENERATED = re.compile(r"<!-- bench (\w+) -->.*?<!-- end of bench \1 -->", re.DOTALL)
INTERVAL = re.compile(r"[+-]\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\]")
DRAWN = json.loads((DOCS / "figures" / "gains.json").read_text("utf-8"))
GAINS = [(row["page"], row["gain"]) for row in DRAWN["gains"]]
GAINS += [(row["page"], row[words]) for row in DRAWN["new_words"] for words in ("known", "new")]


def name(path):
    return str(path.relative_to(REPOSITORY))


def text_of(path):
    return GENERATED.sub("", path.read_text("utf-8"))


@pytest.mark.parametrize("page", [README, REPOSITORY / "CHANGELOG.md", *PAGES], ids=name)
def test_lines_are_short_and_tables_narrow(page):
    for line in text_of(page).splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") - 1 <= 8, line
        else:
            assert len(line) <= 100, line


def test_the_readme_is_one_screen_after_another():
    lines = README.read_text("utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_a_guide_is_short_and_starts_with_a_command(page):
    lines = page.read_text("utf-8").splitlines()
    assert len(lines) <= 150
    first = next(line for line in lines[1:] if line)
    assert first.startswith("```"), first


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_page_that_the_code_names_exists():
    for folder in ("hero_plugin", "adapters", "integrations", "tests"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for page in re.findall(r"\bdocs/[\w/]+\.md", path.read_text("utf-8")):
                assert (REPOSITORY / page).exists(), f"{path}: {page}"


@pytest.mark.parametrize(("page", "gain"), GAINS)
def test_every_gain_of_the_pictures_is_on_its_page(page, gain):
    mean, low, high = gain
    text = (DOCS / page).read_text("utf-8").replace("*", "")
    assert re.search(rf"{re.escape(f'{mean:+.1f}')}\s\[{re.escape(f'{low:+.1f}, {high:+.1f}')}\]", text)


def test_every_interval_of_the_readme_is_in_the_results():
    results = "".join(path.read_text("utf-8") for path in (DOCS / "results").glob("*.md"))
    said = INTERVAL.findall(README.read_text("utf-8"))
    assert said
    assert all(each in results for each in said)


def test_a_gain_of_the_readme_stands_beside_its_cost():
    cost = (DOCS / "results" / "cost_tables.md").read_text("utf-8")
    for base, ratio in re.findall(r"\| ([\w-]+), Charades.*?\| ([\d.]+) × \|", README.read_text("utf-8")):
        table = cost[cost.index(f"**{base}, training step") :]
        measured = next(line for line in table.splitlines() if line.startswith("| HERO, 4 levels")).split("|")[6]
        assert f"{float(measured):.1f}" == ratio
    page = (DOCS / "results" / "cost.md").read_text("utf-8")
    hem = re.search(r"\| EMB \| ([\d.]+) \|", page[page.index("## HEM alone") :])
    said = re.search(r"\| EMB, HEM alone.*\| ([\d.]+) × \|", README.read_text("utf-8"))
    assert f"{float(hem[1]):.1f}" == said[1]
