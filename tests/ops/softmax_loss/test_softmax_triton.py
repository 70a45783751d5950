"""The softmax loss's Triton kernels compiled ahead of time; softmax_triton_checks.py has what they compute."""

from __future__ import annotations

import pytest
from loss_testing import SOFTMAX
from triton_compilation import ARCHITECTURES, Launch, assert_fits, recorded_launches, skip_without_compiler

from ciss_fast.ops.softmax_loss.operator import AVERAGE_CODES, KD_REGION_BITS
from ciss_fast.ops.softmax_loss.options import DEFAULT_AVERAGE, TERMS

# Registers a thread may have, by kernel, and bytes of local memory: where fewer registers let more warps run, Triton's
# assembler takes 8 or 24 bytes for some architectures and versions, outside of the loops.
SPILLS = 32
REGISTERS = {"loss_of_pixels": 224, "loss_of_cells": 255}
ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}
MIB = {"cce": 1.0, "ckd": 10.0}


def launches(size: int, label_size: int, align_corners: bool = False, **weights: float) -> list[Launch]:
    """What a call with 151 classes, 101 of them old, launches."""
    from ciss_fast.ops.softmax_loss.triton_launch import softmax_loss

    inputs = SOFTMAX.draw(batch=2, classes=151, old=101, size=(size, size), label_size=(label_size, label_size))
    averages = [AVERAGE_CODES[DEFAULT_AVERAGE[term]] for term in TERMS]
    options = (101, [weights.get(term, 0.0) for term in TERMS], averages, KD_REGION_BITS["not_unlabelled"], 1.0, 255)
    return recorded_launches(lambda: softmax_loss(*inputs, *options, align_corners, False, True))


def assert_launches_fit(architecture: int, *arguments: int | bool, **weights: float) -> None:
    """Few registers, next to no spills, sums in a fixed order: nothing is added to memory by whoever comes first."""
    skip_without_compiler()
    for name, binary in assert_fits(launches(*arguments, **weights), architecture, REGISTERS, SPILLS).items():
        assert not {"ATOM", "ATOMG", "RED"} & set(binary.instructions), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_label_size(architecture: int) -> None:
    assert_launches_fit(architecture, 32, 32, **dict.fromkeys(TERMS, 1.0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_enlarged(architecture: int) -> None:
    assert_launches_fit(architecture, 8, 128, **ALIFE)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
@pytest.mark.parametrize("options", [(8, 128, ALIFE), (32, 512, MIB), (16, 128, MIB), (32, 128, ALIFE)], ids=str)
@pytest.mark.parametrize("align_corners", [False, True])
def test_enlarged_in_all_ways(align_corners: bool, options: tuple, architecture: int) -> None:
    size, label_size, weights = options
    assert_launches_fit(architecture, size, label_size, align_corners, **weights)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_enlarged_with_focal(architecture: int) -> None:
    assert_launches_fit(architecture, 8, 128, **dict.fromkeys(TERMS, 1.0))
