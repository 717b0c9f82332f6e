"""What goes wrong on the user's side and is told in one message, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """The message says what was expected, what came, and what to do."""
