"""Settings of every test's process, and the fixtures that several packages of tests read."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass

import pytest
import torch

from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.train import main
from tests.screen import QUIET
from tests.training.files import Files, write_files


def pytest_configure() -> None:
    torch.set_num_threads(1)  # the tests' tensors are small: more threads than one only wait for each other
    # Started with `&` from a script, pytest ignores Ctrl-C, and so would the commands that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_seed() -> None:
    torch.manual_seed(0)


@dataclass(frozen=True)
class Runs:
    files: Files
    base: RunFolder
    hero: RunFolder

    def config(self, **changes: object) -> TrainConfig:
        return config_from(self.files.settings(**changes), "test")


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    """Two finished runs, plain EMB and HERO-EMB, that tests read; nobody writes into them."""
    root = tmp_path_factory.mktemp("training")
    files = write_files(root / "data")
    made = Runs(files, RunFolder(root / "base"), RunFolder(root / "hero"))
    main(made.config(output=str(made.base.path), base_only=True), QUIET)
    main(made.config(output=str(made.hero.path), compare=str(made.base.path)), QUIET)
    return made
