"""The sigmoid loss's Triton kernels: through the interpreter, on a GPU, compiled ahead of time."""

from __future__ import annotations

from pathlib import Path

import pytest
from triton_testing import checks_of, interpreted, on_gpu

CHECKS = Path(__file__).with_name("sigmoid_triton_checks.py")


@pytest.mark.parametrize("name", checks_of(CHECKS))
def test_in_the_interpreter(name) -> None:
    interpreted(CHECKS, name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", checks_of(CHECKS))
def test_on_a_gpu(name) -> None:
    on_gpu(CHECKS, name)
