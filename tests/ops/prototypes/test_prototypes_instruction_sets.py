"""The kernel of `prototypes` compiled for narrower vectors: the same tolerances."""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKS = """
import importlib.util, sys
import torch
import ciss_fast
from ciss_fast import native

torch.set_num_threads(1)
specification = importlib.util.spec_from_file_location("prototypes_conftest", sys.argv[1])
conftest = sys.modules["prototypes_conftest"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(conftest)

for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for positions, classes, per_class, dimension in (
        (1, 1, 1, 1), (33, 2, 13, 17), (50, 9, 29, 31), (1100, 2, 70, 256), (97, 3, 12, 64), (2, 1, 5, 3), (16, 1, 4, 8)
    ):
        conftest.assert_matches(conftest.draw(positions, classes, per_class, dimension, dtype=dtype), backend="cpu")
    inputs = conftest.draw(40, 3, 14, 20, dtype=dtype)
    inputs.feature_prev[::3] = 0
    inputs.memory[1] = 0
    conftest.assert_matches(inputs, backend="cpu")
    for value in (float("nan"), float("inf"), float("-inf")):
        memory = inputs.memory.clone()
        memory[1, 13, 19] = value
        clean, result = (ciss_fast.prototypes(*inputs[:2], m, backend="cpu")[0] for m in (inputs.memory, memory))
        assert result[1].isnan().all() and torch.equal(result[::2], clean[::2])
        prev = inputs.feature_prev.clone()
        prev[39, 19] = value
        assert ciss_fast.prototypes(prev, *inputs[1:], backend="cpu")[1].isnan().all()
conftest.assert_matches(conftest.draw_close(300, 2, 1000, 256), backend="cpu", tolerance=1e-4)
conftest.assert_matches(conftest.draw_close(300, 2, 1000, 256, torch.float64), backend="cpu", tolerance=1e-11)
print(native.library.instruction_set())
"""


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_instruction_set(name, kernel, run_in_instruction_set) -> None:
    conftest = str(Path(__file__).with_name("conftest.py"))
    assert run_in_instruction_set(name, CHECKS, conftest) == f"{name}\n"
