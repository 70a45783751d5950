"""The sigmoid loss's Triton kernels compiled ahead of time; sigmoid_triton_checks.py has what they compute."""

from __future__ import annotations

import pytest
from loss_testing import SIGMOID
from triton_compilation import ARCHITECTURES, assert_fits, recorded_launches, skip_without_compiler

# Registers a thread may have, by kernel.
REGISTERS = {"loss_of_pixels": 128, "loss_of_cells": 72}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_ahead_of_time(architecture: int) -> None:
    skip_without_compiler()
    from ciss_fast.ops.sigmoid_loss.triton_launch import sigmoid_loss

    for size, label_size in (((8, 8), (128, 128)), ((32, 32), (32, 32))):
        inputs = SIGMOID.draw(batch=2, classes=151, old=101, size=size, label_size=label_size)
        options = (100, [1.0, 5.0, 1.0], 35.0, 255, False, False, True)
        launches = recorded_launches(lambda inputs=inputs, options=options: sigmoid_loss(*inputs, *options))
        for name, binary in assert_fits(launches, architecture, REGISTERS).items():
            assert not {"ATOM", "ATOMG", "RED"} & set(binary.instructions), name
