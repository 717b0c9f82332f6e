"""Every test here starts from the same seed; the finished runs are those of the training tests."""

from __future__ import annotations

import pytest
import torch

from tests.training.conftest import runs  # noqa: F401


@pytest.fixture(autouse=True)
def same_seed():
    torch.manual_seed(0)
