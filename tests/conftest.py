"""What every test's process needs."""

from __future__ import annotations

import signal
import threading

import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)  # the tests' tensors are small: more threads than one only wait for each other
    # Started with `&` from a script, pytest ignores Ctrl-C, and so would the commands that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
