"""For the tests on a GPU: their modules and those of the operators' tests can be imported, and where tests run.

Tests marked ``gpu(interpreter=True)`` also run on the CPU where triton interprets (TRITON_INTERPRET=1): slowly, and
with aot_eager in torch.compile's place; that is how they are tested themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "ops")]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The GPU, or the CPU in triton's interpreter."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
