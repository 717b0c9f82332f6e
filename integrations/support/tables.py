"""Tables of figures, made once: for the terminal, in Markdown, CSV, LaTeX and JSON, and as a picture."""

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import rich.table
from rich.markup import escape

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import write_text


@dataclass(frozen=True)
class Cell:
    """One figure, and what is known of how far it is to be trusted."""

    value: float | None
    """None where there is nothing to measure."""
    std: float | None = None
    """Sample standard deviation over trainings."""
    interval: tuple[float, float] | None = None
    values: tuple[float, ...] = ()
    """Of each training, in the order of the seeds."""
    p: float | None = None
    difference: bool = False
    """Of two models, which has a sign."""
    best: bool = False
    """Better than every other model, by intervals of the differences that exclude 0."""

    @classmethod
    def of(cls, value: float) -> "Cell":
        """Return a figure of which nothing else is known; NaN is none."""
        return cls(None if math.isnan(value) else float(value))

    @property
    def decided(self) -> bool:
        """Return whether this is a difference whose interval excludes 0."""
        return self.difference and self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    @property
    def shows_std(self) -> bool:
        """Return whether it stands with its deviation, in place of its interval."""
        return self.std is not None and not self.difference

    def number(self, value: float, digits: int) -> str:
        """Return a number with so many digits, signed where it is a difference, never as minus zero."""
        return f"{round(value, digits) + 0.0:{'+' if self.difference else ''}.{digits}f}"

    def text(self, digits: int, details: bool = True) -> str:
        """Return it as a cell: with deviation and interval, and with p and single trainings if ``details``."""
        if self.value is None:
            return "-"
        text = self.number(self.value, digits)
        if self.shows_std:
            text += f" ± {self.std:.{digits}f}"
        elif self.interval is not None:
            text += f" [{', '.join(self.number(end, 1) for end in self.interval)}]" + "*" * self.decided
        if details and self.difference:
            text += "" if self.p is None else f", p {self.p:.2f}"
            text += f" ({', '.join(self.number(each, 1) for each in self.values)})" if self.values else ""
        return text

    def to_json(self) -> dict[str, Any]:
        """Return what is known."""
        low, high = self.interval or (None, None)
        known: dict[str, Any] = {"value": self.value, "std": self.std, "low": low, "high": high, "p": self.p}
        return {**known, "values": list(self.values), "best": self.best}


@dataclass(frozen=True)
class Row:
    """A row: what it is of, and its figures, one for each column."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Rows of figures, in groups of rows whose first labels are the same."""

    labels: tuple[str, ...]
    """Names of the columns of labels."""
    columns: tuple[str, ...]
    """Names of the columns of figures."""
    rows: Sequence[Row]
    title: str = ""
    caption: str = ""
    """What the figures are, and what marks mean."""
    counts: tuple[str, ...] = ()
    """Those of ``labels`` that are numbers."""
    shared: int | None = None
    """How many labels the rows of a group share; None: all but the last."""
    digits: int = 2

    def groups(self) -> list[list[Row]]:
        """Return the rows that stand together."""
        shared = len(self.labels) - 1 if self.shared is None else self.shared
        return [list(rows) for _, rows in groupby(self.rows, key=lambda row: row.labels[:shared])]

    def terminal(self) -> rich.table.Table:
        """Return it for a terminal, the best bold. A label that stands above is not repeated."""
        table = rich.table.Table(title=escape(self.title) or None, title_justify="left", title_style="bold")
        for name in (*self.labels, *self.columns):
            table.add_column(escape(name), justify="right" if name in self._numbers else "left", overflow="fold")
        groups = self.groups()
        above: tuple[str, ...] = ()
        for group in groups:
            for row in group:
                cells = (("[bold]" * each.best) + escape(each.text(self.digits, False)) for each in row.cells)
                difference = any(each.difference for each in row.cells)
                labels = map(escape, _unrepeated(row.labels, above))
                table.add_row(*labels, *cells, style="italic" if difference else None)
                above = row.labels
            if len(groups) < len(self.rows):
                table.add_section()
        return table

    def markdown(self) -> str:
        """Return it in Markdown, the best bold, with its title above and its caption below."""
        rows = []
        for row in self.rows:
            texts = [each.text(self.digits) for each in row.cells]
            marks = ["**" * each.best for each in row.cells]
            rows.append([*row.labels, *(mark + text + mark for mark, text in zip(marks, texts, strict=True))])
        text = [name for name in self.labels if name not in self.counts]
        table = markdown_table((*self.labels, *self.columns), rows, text)
        return "\n\n".join(filter(None, [self.title and f"**{self.title}**", table, self.caption]))

    def csv(self) -> str:
        """Return it as CSV: of each figure its value, deviation and interval."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        parts = ("", " std", " low", " high")
        writer.writerow([*self.labels, *(f"{name}{part}" for name in self.columns for part in parts)])
        for row in self.rows:
            cells = [cell for each in row.cells for cell in (each.value, each.std, *(each.interval or ("", "")))]
            writer.writerow([*row.labels, *("" if cell is None else cell for cell in cells)])
        return stream.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Return everything, as JSON values."""
        rows = [
            {
                **dict(zip(self.labels, row.labels, strict=True)),
                "figures": {name: each.to_json() for name, each in zip(self.columns, row.cells, strict=True)},
            }
            for row in self.rows
        ]
        return {"title": self.title, "caption": self.caption, "rows": rows}

    def latex(self) -> str:
        """Return a table environment for booktabs: the best bold, a star where the interval excludes 0."""
        header = (*self.labels, *self.columns)
        kinds = "".join("r" if name in self._numbers else "l" for name in header)
        named = (*(name[:1].upper() + name[1:] for name in self.labels), *self.columns)
        lines = [r"\toprule", _latex_line(map(latex_text, named))]
        for group in self.groups():
            lines.append(r"\midrule")
            above: tuple[str, ...] = ()
            for row in group:
                labels = map(latex_text, _unrepeated(row.labels, above))
                lines.append(_latex_line([*labels, *(_latex_cell(each, self.digits) for each in row.cells)]))
                above = row.labels
        body = "\n".join(f"    {line}" for line in (*lines, r"\bottomrule"))
        caption = latex_text(" ".join(filter(None, [self.title and f"{self.title}.", self.caption])))
        return (
            "% \\usepackage{booktabs}\n\\begin{table}[t]\n  \\centering\n"
            f"  \\caption{{{caption}}}\n  \\begin{{tabular}}{{{kinds}}}\n{body}\n  \\end{{tabular}}\n\\end{{table}}\n"
        )

    @property
    def _numbers(self) -> set[str]:
        return {*self.counts, *self.columns}


def _unrepeated(labels: tuple[str, ...], above: tuple[str, ...]) -> tuple[str, ...]:
    """Return labels with nothing in place of those that stand above, as long as all before them do; never the last."""
    same = 0
    while same < len(labels) - 1 and above[: same + 1] == labels[: same + 1]:
        same += 1
    return (*[""] * same, *labels[same:])


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}
"""What has another meaning in LaTeX, or none."""


def latex_text(text: str) -> str:
    r"""Return text that LaTeX prints as it is.

    >>> latex_text("R1@0.5, 95 % [a_b]")
    'R1@0.5, 95 \\% [a\\_b]'
    """
    return "".join(LATEX.get(each, each) for each in text)


def _latex_line(cells: Iterable[str]) -> str:
    line = " & ".join(cells) + r" \\"
    return "{}" * line.startswith(("[", "*")) + line  # else they would belong to the \\ above


def _latex_cell(cell: Cell, digits: int) -> str:
    if cell.value is None:
        return "--"
    number = cell.number(cell.value, digits)
    text = f"${number}$" if cell.difference else f"\\textbf{{{number}}}" if cell.best else number
    if cell.shows_std:
        text += f" {{\\scriptsize $\\pm {cell.std:.{digits}f}$}}"
    elif cell.interval is not None:
        text += f" {{\\scriptsize $[{', '.join(cell.number(end, 1) for end in cell.interval)}]$}}"
    return text + "$^{*}$" * cell.decided


WRITERS: Mapping[str, tuple[str, Callable[[Table], str]]] = {
    "markdown": (".md", lambda table: table.markdown() + "\n"),
    "csv": (".csv", Table.csv),
    "latex": (".tex", Table.latex),
    "json": (".json", lambda table: json.dumps(table.to_json(), indent=2) + "\n"),
}
"""By name: the ending of a file, and what is in it."""


def check_endings(flag: str, paths: Iterable[Path]) -> None:
    """Raise ``UserError`` where a file's ending says no format, or a folder has its name."""
    known = [ending for ending, _ in WRITERS.values()]
    for path in paths:
        if path.suffix.lower() not in known:
            raise UserError(f"{flag} {path}: a table is written by its file's ending, one of {', '.join(known)}")
        if path.is_dir():
            raise UserError(f"{flag} {path}: is a folder; name a file")


def write_table(table: Table, path: Path) -> Path:
    """Write a table in the format of the file's ending."""
    write = next(write for ending, write in WRITERS.values() if ending == path.suffix.lower())
    write_text(path, write(table))
    return path


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], text: Collection[str] = ()) -> str:
    """Return a Markdown table: its first column and those named in ``text`` are of text, the others are of numbers.

    >>> print(markdown_table(("model", "set", "mIoU"), [("EMB", "test", "41.2")], text=("set",)))
    | model | set | mIoU |
    |---|---|---:|
    | EMB | test | 41.2 |
    """

    def line(cells: Sequence[str]) -> str:
        escaped = (cell.replace("|", "\\|") for cell in cells)
        return "|" + "".join(f" {cell} |" if cell else " |" for cell in escaped)

    rule = "".join("---|" if place == 0 or name in text else "---:|" for place, name in enumerate(header))
    return "\n".join([line(header), f"|{rule}", *map(line, rows)])


def terminal_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], text: Collection[str] = (), title: str | None = None
) -> rich.table.Table:
    """Return the same for the terminal; headers of numbers break at their spaces, numbers nowhere."""
    table = rich.table.Table(title=title and escape(title), title_justify="left", title_style="bold")
    for place, name in enumerate(header):
        if place and name in text:
            table.add_column(escape(name))
        else:
            table.add_column(
                escape(name.replace(" ", "\n") if place else name), justify="right" if place else "left", no_wrap=True
            )
    for row in rows:
        table.add_row(*map(escape, row))
    return table
