"""The picture of all gains says what the pages say."""

from __future__ import annotations

import json

import pytest

from tests.resources import REPOSITORY

ROWS = json.loads((REPOSITORY / "docs" / "figures" / "gains.json").read_text("utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['base']}, {row['set']}, {row['note']}")
def test_every_gain_of_the_picture_is_in_the_pages(row):
    mean, low, high = row["gain"]
    pages = "".join((REPOSITORY / "docs" / name).read_text("utf-8") for name in ("results.md", "drift.md"))
    said = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    assert said in pages.replace("*", "")
