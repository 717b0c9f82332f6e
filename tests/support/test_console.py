"""Output for people."""

from __future__ import annotations

from hero_plugin.integrations.support.console import markdown_table


def test_markdown_tables_align_numbers_right() -> None:
    text = markdown_table(("", "set", "R1"), [("EMB", "val", "41.20"), ("a|b", "test", "-")], text=("set",))
    assert text.splitlines() == ["| | set | R1 |", "|---|---|---:|", "| EMB | val | 41.20 |", r"| a\|b | test | - |"]
