"""The tests for a GPU themselves, as far as they run on the CPU in triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.slow
def test_in_the_interpreter() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if torch.cuda.is_available():
        pytest.skip("the tests run on the GPU")
    finished = subprocess.run(
        # The golden files' maps are too large for an interpreter.
        [sys.executable, "-m", "pytest", "-q", "-k", "not golden", str(Path(__file__).parent)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout[-4000:]
    assert " passed" in finished.stdout
