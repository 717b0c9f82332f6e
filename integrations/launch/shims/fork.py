"""Worker processes that start afresh, without what is changed at run time."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.shims import Shim


def _forking(context: Any) -> Any:
    return multiprocessing.get_context("fork")


FORK = Shim(
    name="fork",
    symptom="from Python 3.14 on, Linux starts a DataLoader's workers afresh: they import the old code without the "
    "other shims",
    repair="workers are forked, as they were when these repositories were written",
    needed=lambda: sys.platform == "linux" and sys.version_info >= (3, 14),
    patches=(Patch("multiprocessing.context", "_default_context._actual_context", _forking, "forks worker processes"),),
)
