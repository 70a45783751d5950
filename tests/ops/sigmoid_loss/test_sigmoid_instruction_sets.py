"""The kernels compiled for narrower vectors: same tolerances, same hard numbers, golden values."""

from __future__ import annotations

import pytest
from instruction_sets import INSTRUCTION_SETS, output_with

pytestmark = pytest.mark.usefixtures("needs_kernel")

CHECKS = """
import sys
import numpy as np
import torch
from ciss_fast import native
from loss_testing import SIGMOID, Inputs

torch.set_num_threads(1)
draw, matches, evaluate, EVERYTHING = SIGMOID.draw, SIGMOID.matches, SIGMOID.evaluate, SIGMOID.everything
DKD = {"mbce": 1.0, "kd": 5.0, "ac": 1.0}

for size, label_size in (
    ((3, 4), (48, 64)), ((3, 4), (24, 32)), ((5, 7), (20, 28)), ((6, 5), (18, 15)), ((6, 5), (12, 10)),
    ((3, 7), (24, 50)), ((9, 9), (9, 9)), ((20, 14), (13, 7)), ((1, 1), (17, 19)), ((2, 2), (3, 300)),
):
    for dtype in (torch.float32, torch.float64):
        for scale, classes, align_corners in ((0.05, 7, False), (3.0, 23, True)):
            inputs = draw(classes=classes, size=size, label_size=label_size, scale=scale, sequential=True, dtype=dtype)
            matches(inputs, align_corners=align_corners, **EVERYTHING)
for dtype in (torch.bfloat16, torch.float16):
    for label_size in ((32, 40), (9, 13), (4, 5)):
        matches(draw(classes=23, label_size=label_size, dtype=dtype), **EVERYTHING)

# Every slope, at levels where sigmoids have few digits.
slopes = torch.tensor([0.03, 0.3, 1.0, 2.0, 3.5, 5.0, 8.0, 12.0, 25.0, 60.0])[:, None, None, None]
for size, label_size in (((3, 4), (48, 64)), ((3, 4), (12, 16)), ((8, 9), (8, 9))):
    i, j = torch.arange(size[0])[:, None], torch.arange(size[1])
    for pattern in ((i + j) % 2 - 0.5, j % 2 + 0.0 * i - 0.5, i + j - 3.0):
        for level in (-30.0, -12.0, 0.0, 15.0):
            inputs = draw(batch=10, size=size, label_size=label_size, scale=0.01, sequential=True)
            inputs = inputs._replace(
                student=inputs.student + level + slopes * pattern, teacher=inputs.teacher + level - slopes * pattern
            )
            matches(inputs, **DKD)
            unlabelled = inputs._replace(label=torch.zeros_like(inputs.label))
            matches(unlabelled, mbce=1.0)
    for value in (float("nan"), float("inf"), float("-inf")):
        inputs = draw(size=size, label_size=label_size)
        inputs.student[1, 2, -1, 0] = value
        result = evaluate(inputs, backend="cpu", mbce=1.0)
        assert result.total.isnan() and result.gradient.isnan().all()

# Sums over many pixels.
for size, label_size in (((1, 1), (256, 256)), ((2, 2), (200, 200))):
    matches(draw(batch=1, size=size, label_size=label_size, scale=0.5, seed=3), **DKD)

# The bits do not depend on the number of threads.
inputs = draw(batch=3, size=(6, 7), label_size=(96, 112), scale=20.0)
first = evaluate(inputs, backend="cpu", **EVERYTHING)
torch.set_num_threads(2)
second = evaluate(inputs, backend="cpu", **EVERYTHING)
assert torch.equal(first.total, second.total) and torch.equal(first.gradient, second.gradient)
torch.set_num_threads(1)

for file in sys.argv[1:]:
    with np.load(file) as arrays:
        label = torch.from_numpy(arrays["label"])
        inputs = Inputs(torch.from_numpy(arrays["student"]), None, label)
        result = evaluate(inputs, backend="cpu", mbce=1.0, ac=1.0, pos_weight=float(arrays["pos_weight"]))
        expected = float(arrays["loss_mbce_base"])
        assert abs(float(result.total) - expected) <= 1e-5 * expected
        gradient = torch.from_numpy(arrays["grad_mbce_base"])
        assert float((result.gradient - gradient).abs().max() / gradient.abs().max()) <= 1e-5
print(native.library.instruction_set(), len(sys.argv) - 1)
"""


@pytest.fixture(scope="session")
def golden_files(request) -> list[str]:
    """Paths of golden files, or nothing where there are none."""
    try:
        return [str(request.getfixturevalue("shared_file")("golden/base.npz"))]
    except pytest.skip.Exception:
        return []


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_instruction_set(golden_files, name) -> None:
    assert output_with(name, CHECKS, *golden_files) == f"{name} {len(golden_files)}\n"
