"""For the tests of all operators; makes the modules of this folder importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ciss_fast import cuda_runtime

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def one_thread(restored_threads: None) -> None:
    """A single thread unless a test sets more: on maps as small as most tests' they would only wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture
def nan_filled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every tensor torch makes without initialising it is full of NaN (integers: of the largest number)."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def emulated_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backend "cuda" takes CPU tensors: its kernels are emulated (see `cuda_emulation`)."""
    from cuda_emulation import emulated_library

    library = emulated_library()
    monkeypatch.setattr(cuda_runtime, "_load", lambda: (library, None))
