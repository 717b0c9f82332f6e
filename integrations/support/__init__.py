"""Files, settings, console and processes: nothing here knows a video or a model.

What most modules need is named here; it loads nothing beyond the standard library.
"""

from hero_plugin.integrations.support.errors import DataError, Problem, Problems, UserError
from hero_plugin.integrations.support.files import (
    OnProgress,
    atomic_write,
    checksum,
    remove_leftovers,
    write_json,
    write_text,
)
from hero_plugin.integrations.support.process import Interrupted, Interrupts, Rank, versions

__all__ = ["DataError", "Interrupted", "Interrupts", "OnProgress", "Problem", "Problems", "Rank", "UserError"]
__all__ += ["atomic_write", "checksum", "remove_leftovers", "versions", "write_json", "write_text"]
