"""Errors on the user's side: shown as one message, without a traceback."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


class UserError(Exception):
    """An error whose message says what was expected, what came, and what to do.

    Attributes:
        hard: End the process as soon as the message is shown, skipping Python's own shutdown; see ``end_at_once``.
    """

    hard = False


def end_at_once(status: int) -> NoReturn:
    """End this process now: no finalizers, nothing joined, streams flushed.

    For a process whose group is broken. Threads of gloo and NCCL still hold tensors of a failed exchange; freeing
    them while Python shuts down aborts the process (pytorch/pytorch#179291) or waits for the peer.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
