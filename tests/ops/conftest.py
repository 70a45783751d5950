"""For the tests of all operators; makes the modules of this folder importable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ciss_fast import cuda_runtime, native

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
    monkeypatch.setattr(cuda_runtime, "module_or_reason", lambda: (library, None))


@pytest.fixture(scope="session")
def run_in_instruction_set(repository: Path) -> Callable[..., str]:
    """Function from an instruction set's name, code and arguments to what the code prints in a process of its own.

    The process has the kernels of the set. Skips where it is not compiled in or the processor does not run it; fails
    where the code does.
    """

    def run(name: str, code: str, *arguments: str) -> str:
        if name not in native.library.compiled_instruction_sets():
            pytest.skip(f"{name} is not compiled in")
        finished = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "CISS_FAST_ISA": name, "PYTHONPATH": str(repository)},
            capture_output=True,
            text=True,
        )
        if f"does not run {name}" in finished.stderr:
            pytest.skip(f"this processor does not run {name}")
        assert finished.returncode == 0, finished.stderr[-2000:]
        return finished.stdout

    return run
