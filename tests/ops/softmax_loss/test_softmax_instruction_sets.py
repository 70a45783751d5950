"""The kernels compiled for narrower vectors: same tolerances, same guards; run-time choice of the set."""

from __future__ import annotations

from pathlib import Path

import pytest
from instruction_sets import INSTRUCTION_SETS, output_with, run_python

from ciss_fast import native

pytestmark = pytest.mark.usefixtures("needs_kernel")

PRELUDE = """
import sys
import numpy as np
import torch
from ciss_fast import native
from loss_testing import SOFTMAX, Inputs

torch.set_num_threads(1)
draw, matches, evaluate, EVERYTHING = SOFTMAX.draw, SOFTMAX.matches, SOFTMAX.evaluate, SOFTMAX.everything
"""

CHECKS = """
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for size, label_size in (
        ((3, 4), (48, 64)), ((3, 4), (24, 32)), ((5, 7), (20, 28)), ((6, 5), (18, 15)), ((6, 5), (12, 10)),
        ((3, 7), (24, 50)), ((9, 9), (9, 9)), ((20, 14), (13, 7)), ((1, 1), (17, 19)), ((2, 2), (3, 300)),
    ):
        for align_corners in (False, True):
            inputs = draw(size=size, label_size=label_size, sequential=True, dtype=dtype)
            matches(inputs, align_corners=align_corners, **EVERYTHING)

# Both sides of the fast form's limits.
for size, label_size in (((3, 4), (24, 64)), ((3, 4), (12, 16)), ((8, 9), (8, 9))):
    for low, high in ((36, 48), (48, 95), (95, 150)):
        inputs = draw(batch=10, size=size, label_size=label_size, scale=0.5, sequential=True)
        distance = torch.linspace(low, high, 10)[:, None, None]
        odd = ((torch.arange(size[0])[:, None] + torch.arange(size[1])) % 2).float()
        student, teacher = inputs.student.clone(), inputs.teacher.clone()
        student[:, 1] -= distance * odd
        student[:, 5] -= distance * (1 - odd)
        teacher[:, 0] -= distance * odd
        teacher[:, 3] -= distance * (1 - odd)
        inputs = inputs._replace(student=student, teacher=teacher)
        for options in ({"ce": 1.0, "ali": 3.0, "kd": 1.0}, {"cce": 1.0, "ckd": 10.0}):
            matches(inputs, **options)
    for value in (float("nan"), float("inf"), float("-inf")):
        inputs = draw(size=size, label_size=label_size)
        inputs.student[1, 2, -1, 0] = value
        result = evaluate(inputs, backend="cpu", ce=1.0)
        assert result.total.isnan() and result.gradient.isnan().all()

# The bits do not depend on the number of threads.
inputs = draw(batch=3, size=(6, 7), label_size=(96, 112), scale=20.0)
first = evaluate(inputs, backend="cpu", **EVERYTHING)
torch.set_num_threads(2)
second = evaluate(inputs, backend="cpu", **EVERYTHING)
assert torch.equal(first.total, second.total) and torch.equal(first.gradient, second.gradient)

for file in sys.argv[1:]:
    with np.load(file) as arrays:
        tensors = [torch.from_numpy(arrays[name]) for name in ("student", "teacher", "label")]
        align_corners = int(arrays["align_corners"]) == 1
        for name, options in (
            ("alife_stage1_w3_1", {"ce": 1.0, "ali": 3.0, "kd": 1.0}), ("cce", {"cce": 1.0}), ("ckd", {"ckd": 1.0}),
            ("focal_pseudo", {"focal": 1.0}),
        ):
            result = evaluate(Inputs(*tensors), backend="cpu", align_corners=align_corners, **options)
            expected = float(arrays["loss_" + name])
            assert abs(float(result.total) - expected) <= 1e-5 * expected, (file, name)
            gradient = torch.from_numpy(arrays["grad_" + name])
            error = float((result.gradient - gradient).abs().max() / gradient.abs().max())
            assert error <= 1e-5, (file, name, error)
print(native.library.instruction_set(), len(sys.argv) - 1)
"""

LONG_STRIPS = """
# The narrower the vector, the more numbers each of its lanes adds up. Old classes far below the new ones make KD's
# loss the small difference of large sums.
for size, label_size in (((1, 1), (256, 256)), ((2, 2), (200, 200)), ((3, 3), (96, 96))):
    for margin in (0.0, 60.0):
        inputs = draw(batch=1, classes=4, old=2, size=size, label_size=label_size, scale=0.5, seed=3)
        inputs.student[:, :2] -= margin
        matches(inputs, loss=1e-5 if margin == 0 else 5e-5, **EVERYTHING)
print(native.library.instruction_set())
"""


@pytest.fixture(scope="session")
def golden_files(request) -> list[str]:
    """Paths of golden files, or nothing where there are none."""
    try:
        shared_file = request.getfixturevalue("shared_file")
    except pytest.skip.Exception:
        return []
    names = ("fullres_hot", "up_ade", "up_false", "up_true")
    return [str(shared_file(str(Path("golden") / f"softmax_{name}.npz"))) for name in names]


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_instruction_set(golden_files, name) -> None:
    assert output_with(name, PRELUDE + CHECKS, *golden_files) == f"{name} {len(golden_files)}\n"


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_long_sums(name) -> None:
    assert output_with(name, PRELUDE + LONG_STRIPS) == f"{name}\n"


def test_unknown_instruction_set() -> None:
    code = """
import torch, ciss_fast
try:
    ciss_fast.softmax_loss(torch.zeros(1, 3, 2, 2), None, torch.zeros(1, 4, 4, dtype=torch.uint8), ce=1.0)
except RuntimeError as error:
    print(error)
"""
    finished = run_python(code, CISS_FAST_ISA="mmx")
    assert finished.stdout == "CISS_FAST_ISA: expected an instruction set that is compiled in, got mmx\n"


def test_empty_choice_is_no_choice() -> None:
    code = "from ciss_fast import native; print(native.library.instruction_set())"
    plain = run_python(code, CISS_FAST_ISA="")
    assert plain.stdout.strip() in native.library.compiled_instruction_sets()
