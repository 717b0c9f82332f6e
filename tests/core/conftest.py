"""Every test of the core starts from the same seed."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_seed():
    torch.manual_seed(0)
