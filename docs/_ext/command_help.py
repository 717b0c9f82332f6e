"""The directive ``command-help``: what a command prints for ``--help``, asked when the site is built."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WIDTH = 88


def help_of(command: str) -> str:
    """Return what ``hero-plugin COMMAND --help`` prints.

    Raises:
        ValueError: there is no such command.
    """
    from hero_plugin.integrations.cli import main

    printed = io.StringIO()
    environment = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    with patch.dict(os.environ, environment), redirect_stdout(printed), redirect_stderr(printed):
        try:
            status = main([*command.split(), "--help"])
        except SystemExit as stop:
            status = stop.code
    if status:
        raise ValueError(f"hero-plugin {command} --help ends with {status}: {printed.getvalue()}")
    return printed.getvalue().strip()


class CommandHelp(SphinxDirective):
    """``{command-help} train emb``; without an argument, the list of commands."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        text = help_of(self.arguments[0] if self.arguments else "")
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": False}
