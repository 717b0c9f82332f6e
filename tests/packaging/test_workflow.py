"""The CI workflow and the issue forms: what they run exists, and they say the versions that the package says."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.resources import REPOSITORY

yaml = pytest.importorskip("yaml")
GITHUB = REPOSITORY / ".github"
PROJECT = (REPOSITORY / "pyproject.toml").read_text("utf-8")
MAKEFILE = (REPOSITORY / "Makefile").read_text("utf-8")


def jobs() -> dict[str, dict[str, str]]:
    """The two rows of the matrix, by name."""
    job = yaml.safe_load((GITHUB / "workflows" / "check.yml").read_text("utf-8"))["jobs"]["check"]
    assert any(step.get("run", "").startswith("make check ") for step in job["steps"])
    return {row["name"]: row for row in job["strategy"]["matrix"]["include"]}


def test_the_oldest_is_what_the_package_asks_for():
    oldest = jobs()["oldest"]
    python = SpecifierSet(re.search(r'requires-python = "(.+)"', PROJECT)[1])
    assert oldest["python"] in python
    older = Version(oldest["python"])
    assert f"{older.major}.{older.minor - 1}" not in python
    torch = Requirement(re.search(r'"(torch>=[\d.]+)"', PROJECT)[1]).specifier
    asked = Version(Requirement(oldest["torch"]).specifier.__iter__().__next__().version)
    assert asked in torch
    assert f"{asked.major}.{asked.minor - 1}" not in torch


def test_the_newest_is_what_make_takes():
    assert jobs()["newest"]["torch"] == re.search(r"^TORCH\s+\?= (\S+)", MAKEFILE, re.MULTILINE)[1]
    assert Version(jobs()["newest"]["python"]) > Version(jobs()["oldest"]["python"])


def test_make_has_what_the_workflow_runs():
    assert re.search(r"^check:", MAKEFILE, re.MULTILINE)
    assert "PYTHON ?=" in MAKEFILE and re.search(r"^TORCH\s+\?=", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("path", sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_issue_forms_are_forms(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids) >= 2
    assert all(field["attributes"].get("label") or field["attributes"].get("value") for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])
