"""Two finished runs, plain EMB and HERO-EMB, that tests read; nobody writes into them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.train import main
from tests.training.dataset import Files, write_files


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Tiny tensors: a second thread would only wait for the first, for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Runs:
    files: Files
    base: RunFolder
    hero: RunFolder

    def config(self, **changes: object) -> TrainConfig:
        return config_from(self.files.settings(**changes), "test")


@pytest.fixture(scope="package")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("training")
    files = write_files(root / "data")
    made = Runs(files, RunFolder(root / "base"), RunFolder(root / "hero"))
    quiet = Screen(quiet=True)
    main(made.config(output=str(made.base.path), base_only=True), quiet)
    main(made.config(output=str(made.hero.path), compare=str(made.base.path)), quiet)
    return made
