"""The directive ``settings-table``: the fields of a dataclass, their defaults and their explanations."""

from __future__ import annotations

import importlib
import re
from dataclasses import MISSING, Field, fields

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective


def rows_of(path: str) -> list[tuple[str, str, str]]:
    """Return name, default and explanation of each field of ``module:Class``, its parents' first.

    Raises:
        ValueError: a field has no explanation.
    """
    module, name = path.split(":")
    kind = getattr(importlib.import_module(module), name)
    explained: dict[str, str] = {}
    for parent in reversed(kind.__mro__[:-1]):
        comments = ModuleAnalyzer.for_module(parent.__module__).find_attr_docs()
        explained |= {field: " ".join(text) for (owner, field), text in comments.items() if owner == parent.__name__}
    missing = [field.name for field in fields(kind) if field.name not in explained]
    if missing:
        raise ValueError(f"{path}: no explanation below {', '.join(missing)}")
    return [(field.name, default_of(field), explained[field.name].strip()) for field in fields(kind)]


def default_of(field: Field) -> str:
    if field.default is not MISSING:
        return repr(field.default)
    if field.default_factory is not MISSING:
        made = repr(field.default_factory())
        return made if len(made) < 30 else made.partition("(")[0] + "()"
    return "required"


class SettingsTable(SphinxDirective):
    """``{settings-table} module:Class``; with ``:beyond: module:Class``, the fields beyond that one's."""

    required_arguments = 1
    option_spec = {"beyond": str}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        rows = rows_of(self.arguments[0])
        if "beyond" in self.options:
            known = rows_of(self.options["beyond"])
            rows = [row for row in rows if row not in known]
        table = nodes.table(classes=["settings"])
        group = nodes.tgroup(cols=3)
        table += group
        group += [nodes.colspec(colwidth=width) for width in (22, 14, 64)]
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        head += row_of([nodes.Text(each)] for each in ("name", "default", "meaning"))
        for name, default, meaning in rows:
            body += row_of([[nodes.literal(name, name)], [nodes.literal(default, default)], inline(meaning)])
        return [table]


def row_of(cells) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        entry = nodes.entry()
        entry += nodes.paragraph("", "", *cell)
        row += entry
    return row


def inline(text: str) -> list[nodes.Node]:
    """Text with its ``code`` and ``:role:`name``` as code."""
    parts = re.split(r"(?::\w+:)?(`{1,2})~?(.+?)\1", text)
    made: list[nodes.Node] = []
    for place, part in enumerate(parts):
        if place % 3 == 0 and part:
            made.append(nodes.Text(part))
        elif place % 3 == 2:
            made.append(nodes.literal(part, part))
    return made


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings-table", SettingsTable)
    return {"parallel_read_safe": False}
