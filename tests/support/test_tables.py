"""Tables: every format says the same, and LaTeX can read what it is given."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.mathtext import MathTextParser
from rich.console import Console

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.plotting import save_figure, table_figure
from hero_plugin.integrations.support.tables import (
    Cell,
    Row,
    Table,
    check_endings,
    markdown_table,
    terminal_table,
    write_table,
)

BEST = Cell(61.25, 1.5, (50.0, 70.0), (60.0, 62.5), best=True)
GAIN = Cell(3.0, None, (0.5, 5.5), (2.0, 4.0), 0.03, difference=True)
OPEN = Cell(-0.04, None, (-1.0, 1.0), difference=True)
TABLE = Table(
    ("set", "queries", "model"),
    ("R1@0.5", "mIoU"),
    [
        Row(("ood", "12", "base_1"), (Cell(58.25, 1.0), Cell(None))),
        Row(("ood", "12", "HERO & co"), (BEST, Cell(40.0))),
        Row(("ood", "12", "HERO & co minus base_1"), (GAIN, OPEN)),
        Row(("100 % new", "7", "base_1"), (Cell(1.0), Cell(2.0))),
    ],
    title="Both",
    caption="± is the deviation, * is sure",
    counts=("queries",),
    digits=1,
)


def test_markdown_tables_align_numbers_right() -> None:
    text = markdown_table(("", "set", "R1"), [("EMB", "val", "41.20"), ("a|b", "test", "-")], text=("set",))
    assert text.splitlines() == ["| | set | R1 |", "|---|---|---:|", "| EMB | val | 41.20 |", r"| a\|b | test | - |"]


def test_markdown_marks_the_best_and_what_is_decided():
    lines = TABLE.markdown().splitlines()
    assert lines[0] == "**Both**"
    assert "| ood | 12 | HERO & co | **61.2 ± 1.5** | 40.0 |" in lines
    gain = "+3.0 [+0.5, +5.5]*, p 0.03 (+2.0, +4.0)"
    assert f"| ood | 12 | HERO & co minus base_1 | {gain} | +0.0 [-1.0, +1.0] |" in lines


def test_the_terminal_does_not_repeat_labels():
    stream = io.StringIO()
    Console(file=stream, width=120).print(TABLE.terminal())
    assert stream.getvalue().count("ood") == 1
    assert "+3.0 [+0.5, +5.5]*" in stream.getvalue() and "p 0.03" not in stream.getvalue()


def test_brackets_stand_in_the_terminal_as_they_are():
    cells = Row(("set[a]",), (Cell(1.0),))
    for made in (
        Table(("by[set]",), ("mAP[short]",), [cells], title="test[ood]").terminal(),
        terminal_table(("by[set]", "mAP[short]", "like[this]"), [("set[a]", "1", "[b]")], ("like[this]",), "test[ood]"),
    ):
        stream = io.StringIO()
        Console(file=stream, width=120).print(made)
        for text in ("test[ood]", "by[set]", "mAP[short]", "set[a]"):
            assert text in stream.getvalue()


def test_csv_has_numbers_alone_and_every_label():
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert [row["set"] for row in rows] == ["ood", "ood", "ood", "100 % new"]
    assert (rows[1]["R1@0.5"], rows[1]["R1@0.5 std"], rows[1]["R1@0.5 high"]) == ("61.25", "1.5", "70.0")
    assert (rows[0]["mIoU"], rows[2]["R1@0.5 low"]) == ("", "0.5")


def test_json_has_everything():
    figures = TABLE.to_json()["rows"][2]["figures"]["R1@0.5"]
    assert figures == {"value": 3, "std": None, "low": 0.5, "high": 5.5, "p": 0.03, "values": [2, 4], "best": False}


def check_latex(text: str, columns: int) -> list[list[str]]:
    """Check what LaTeX would stumble over; return the cells of the table's rows."""
    without = re.sub(r"\\[\\&%$#_{}]", "", re.sub(r"^%.*\n", "", text))
    assert not re.search(r"[#%~^]|\\\\\s*[\[*]", without.replace("$^{*}$", "")), "a character with a meaning of its own"
    assert without.count("{") == without.count("}")
    assert without.count("$") % 2 == 0
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    body = re.search(r"\\begin\{tabular\}\{([lr]+)\}\n(.*)\\end\{tabular\}", text, re.DOTALL)
    assert len(body[1]) == columns
    lines = [line.strip() for line in body[2].strip().splitlines()]
    assert (lines[0], lines[2], lines[-1]) == (r"\toprule", r"\midrule", r"\bottomrule")
    rows = [line for line in lines if line not in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert all(line.endswith(r"\\") for line in rows)
    cells = [re.split(r"(?<!\\)&", line[:-2]) for line in rows]
    assert {len(row) for row in cells} == {columns}
    for formula in re.findall(r"(?<!\\)\$(.+?)(?<!\\)\$", text):
        MathTextParser("agg").parse(f"${formula}$")
    return [[cell.strip() for cell in row] for row in cells]


def test_latex_is_a_booktabs_table_that_marks_the_best_and_what_is_decided():
    text = TABLE.latex()
    rows = check_latex(text, 5)
    assert rows[0] == ["Set", "Queries", "Model", "R1@0.5", "mIoU"]
    assert rows[2] == ["", "", r"HERO \& co", r"\textbf{61.2} {\scriptsize $\pm 1.5$}", "40.0"]
    assert rows[3][3:] == [
        r"$+3.0$ {\scriptsize $[+0.5, +5.5]$}$^{*}$",
        r"$+0.0$ {\scriptsize $[-1.0, +1.0]$}",
    ]
    assert rows[4][0] == r"100 \% new"
    assert text.count(r"\midrule") == 2
    assert r"\caption{Both. $\pm$ is the deviation, * is sure}" in text


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]), max_size=8), min_size=2, max_size=2))
def test_any_name_is_text_to_latex(names):
    table = Table(("set", "model"), ("mIoU",), [Row(tuple(names), (Cell(1.0),))], caption="".join(names))
    assert len(check_latex(table.latex(), 3)) == 2


def test_a_table_is_drawn_as_png_and_pdf(tmp_path):
    figure = table_figure(TABLE)
    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["R1@0.5", "mIoU"]
    assert save_figure(figure, tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert save_figure(figure, tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")


def test_a_file_has_the_format_of_its_ending(tmp_path):
    assert write_table(TABLE, tmp_path / "t.MD".lower()).read_text() == TABLE.markdown() + "\n"
    with pytest.raises(UserError, match=r"--table x\.doc: .* one of \.md, \.csv, \.tex, \.json"):
        check_endings("--table", [tmp_path.relative_to(tmp_path) / "x.doc"])
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_endings("--table", [tmp_path / "folder.md"])
