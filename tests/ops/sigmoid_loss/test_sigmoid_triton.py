"""The sigmoid loss's Triton kernels: through the interpreter, on a GPU, compiled ahead of time."""

from __future__ import annotations

from pathlib import Path

import pytest
from loss_testing import SIGMOID
from triton_compilation import ARCHITECTURES, assert_fits, recorded_launches, skip_without_compiler
from triton_testing import checks_of, interpreted, on_gpu

CHECKS = Path(__file__).with_name("sigmoid_triton_checks.py")


@pytest.mark.parametrize("name", checks_of(CHECKS))
def test_in_the_interpreter(name) -> None:
    interpreted(CHECKS, name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", checks_of(CHECKS))
def test_on_a_gpu(name) -> None:
    on_gpu(CHECKS, name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_ahead_of_time(architecture) -> None:
    skip_without_compiler()
    from ciss_fast.ops.sigmoid_loss.triton_launch import sigmoid_loss

    for size in ((16, 16), (32, 32)):
        inputs = SIGMOID.draw(batch=2, classes=151, old=101, size=size, label_size=(32, 32))
        options = (100, [1.0, 5.0, 1.0], 35.0, 255, False, False, True)
        launches = recorded_launches(lambda inputs=inputs, options=options: sigmoid_loss(*inputs, *options))
        for name, binary in assert_fits(launches, architecture, {"loss_of_pixels": 176}).items():
            assert not {"ATOM", "ATOMG", "RED"} & set(binary.instructions), name
