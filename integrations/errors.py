"""What goes wrong on the user's side and is told in one message, without a traceback."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


class UserError(Exception):
    """The message says what was expected, what came, and what to do.

    Attributes:
        hard: end the process as soon as the message is told, without Python's own end; see ``end_at_once``.
    """

    hard = False


def end_at_once(status: int) -> NoReturn:
    """End this process now: no finalizers, nothing joined, streams flushed.

    For a process whose group is broken. Threads of gloo and NCCL still hold tensors of a talk that failed; letting
    them go while Python takes itself down aborts the process (pytorch/pytorch#179291) or waits for the peer.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
