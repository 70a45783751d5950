"""The kernels compiled for narrower vectors: same tolerances, same guards."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("needs_kernel")

CHECKS = """
import importlib.util, itertools, sys
import torch
from ciss_fast import native

torch.set_num_threads(1)
specification = importlib.util.spec_from_file_location("reasoning_conftest", sys.argv[1])
conftest = sys.modules["reasoning_conftest"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(conftest)
draw, matches, evaluate = conftest.draw_inputs, conftest.assert_matches, conftest.evaluate

for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for batch, classes, size in ((9, 5, (6, 7)), (2, 15, (23, 25)), (1, 100, (24, 24)), (1, 300, (23, 25))):
            inputs = draw(
                batch=batch, channels=37, classes=classes, size=size, dtype=dtype, memory_format=memory_format
            )
            for options in ({"pos": 5.0, "neg": 3.0}, {"pos": 1.0}, {"neg": 2.0}):
                matches(inputs, **options)

# Sure scores, exact: the classifiers are 1 and -1.
weight = torch.tensor([[1.0, -1.0]])
generator = torch.Generator().manual_seed(0)
for student, teacher in (
    (-60, -58), (-40, -42), (-16, -18), (-5, -7), (5, 7), (16, 14), (40, 42), (60, 58), (30, -30), (-30, 30), (0, 40),
    (1e4, -1e4), (-1e4, 0), (1e4, 0),
):
    for dtype in (torch.float32, torch.float64):
        z, z_old = (level + 0.5 * torch.randn(2, 1, 9, 11, generator=generator) for level in (student, teacher))
        inputs = conftest.Inputs(torch.cat([z, -z], 1), weight, torch.cat([z_old, -z_old], 1), weight)
        matches(conftest.Inputs(*(x.to(dtype) for x in inputs)))

for value, place in itertools.product((float("nan"), float("inf"), float("-inf")), (0, 17, -1)):
    for name in ("feature", "feature_old"):
        for size in ((6, 7), (23, 25)):
            inputs = draw(size=size)
            getattr(inputs, name).view(-1)[place] = value
            result = evaluate(inputs, backend="cpu")
            assert result.total.isnan() and result.feature.isnan().all() and result.weight.isnan().all()

# The bits do not depend on the number of threads.
for memory_format in (torch.contiguous_format, torch.channels_last):
    inputs = draw(batch=3, channels=40, classes=30, size=(33, 35), memory_format=memory_format)
    first = evaluate(inputs, backend="cpu")
    torch.set_num_threads(2)
    second = evaluate(inputs, backend="cpu")
    torch.set_num_threads(1)
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("total", "feature", "weight"))
print(native.library.instruction_set())
"""


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_instruction_set(run_in_instruction_set, name) -> None:
    conftest = str(Path(__file__).with_name("conftest.py"))
    assert run_in_instruction_set(name, CHECKS, conftest) == f"{name}\n"
