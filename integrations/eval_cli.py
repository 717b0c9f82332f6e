"""``hero-plugin eval``: runs on annotations, or a submission of any model by QVHighlights' official figures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from hero_plugin.integrations.errors import UserError

USAGE = """hero-plugin eval scores one of two things:

  hero-plugin eval --run FOLDER
      runs of this package, on any annotations, side by side where there are several
  hero-plugin eval --submission FILE --annotations FILE
      what any model predicted, by QVHighlights' official evaluation; with --train by unseen words, too
"""


def evaluate(argv: Sequence[str]) -> None:
    """Hand the flags to the command that they are for; without either, ``--help`` shows both."""
    given = {word.partition("=")[0] for word in argv}
    if "--submission" in given:
        _submission(argv)
    elif "--run" in given:
        _run(argv)
    elif given.isdisjoint({"-h", "--help"}):
        raise UserError(f"{USAGE}\nhero-plugin eval --help shows the flags of both.")
    else:
        print(USAGE)
        for command in (_run, _submission):
            with suppress(SystemExit):  # how the parser ends its help
                command(argv)


def _run(argv: Sequence[str]) -> None:
    from hero_plugin.integrations import commands

    commands.evaluate(argv)


def _submission(argv: Sequence[str]) -> None:
    from hero_plugin.integrations import submission_cli

    submission_cli.evaluate(argv)
