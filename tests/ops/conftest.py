"""Makes the modules of this folder importable for the tests of all operators."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def nan_filled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every tensor torch makes without initialising it is full of NaN (integers: of the largest number)."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
