"""The softmax loss's Triton kernels: through the interpreter, on a GPU, compiled ahead of time."""

from __future__ import annotations

from pathlib import Path

import pytest
from loss_testing import SOFTMAX
from triton_compilation import ARCHITECTURES, Launch, assert_fits, recorded_launches, skip_without_compiler
from triton_testing import checks_of, interpreted, on_gpu

from ciss_fast.ops.softmax_loss.operator import AVERAGE_CODES, KD_REGION_BITS
from ciss_fast.ops.softmax_loss.options import DEFAULT_AVERAGE, TERMS

CHECKS = Path(__file__).with_name("softmax_triton_checks.py")


@pytest.mark.parametrize("name", checks_of(CHECKS))
def test_in_the_interpreter(name) -> None:
    interpreted(CHECKS, name)


@pytest.mark.gpu
@pytest.mark.parametrize("name", checks_of(CHECKS))
def test_on_a_gpu(name) -> None:
    on_gpu(CHECKS, name)


def launches(size: tuple[int, int], label_size: tuple[int, int], **weights: float) -> list[Launch]:
    """What a call with 151 classes, 101 of them old, launches."""
    from ciss_fast.ops.softmax_loss.triton_launch import softmax_loss

    inputs = SOFTMAX.draw(batch=2, classes=151, old=101, size=size, label_size=label_size)
    averages = [AVERAGE_CODES[DEFAULT_AVERAGE[term]] for term in TERMS]
    options = (101, [weights.get(term, 0.0) for term in TERMS], averages, KD_REGION_BITS["not_unlabelled"], 1.0, 255)
    return recorded_launches(lambda: softmax_loss(*inputs, *options, False, False, True))


# Registers a thread may have, by kernel.
REGISTERS = {"loss_of_pixels": 208}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled_ahead_of_time(architecture) -> None:
    skip_without_compiler()
    everything = dict.fromkeys(TERMS, 1.0)
    binaries = assert_fits(launches((16, 16), (32, 32), **everything), architecture, REGISTERS)
    binaries |= assert_fits(launches((32, 32), (32, 32), **everything), architecture, REGISTERS)
    # Sums in a fixed order: nothing is added to memory by whoever comes first.
    for name, binary in binaries.items():
        assert not {"ATOM", "ATOMG", "RED"} & set(binary.instructions), name
