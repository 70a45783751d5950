"""The kernels compiled for narrower vectors: same tolerances, orthogonality, bits on two threads, golden values."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("needs_kernel")

CHECKS = """
import importlib.util, sys
import numpy as np
import torch
import ciss_fast
from ciss_fast import native

torch.set_num_threads(1)
specification = importlib.util.spec_from_file_location("cayley_conftest", sys.argv[1])
conftest = sys.modules["cayley_conftest"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(conftest)
draw, matches, evaluate = conftest.draw_inputs, conftest.assert_matches, conftest.evaluate

for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for dimension in (1, 2, 5, 16, 31, 64):
        for vectors in (None, 3, 20, 70):
            for norm in (0.0, 0.3, 3.0, 30.0):
                matches(draw(dimension=dimension, vectors=vectors, norm=norm, dtype=dtype))
for dimension in (256, 300):
    for norm in (0.05, 3.0, 20.0):
        matches(draw(classes=1, dimension=dimension, norm=norm))
        matches(draw(classes=1, dimension=dimension, norm=norm, dtype=torch.float64))
matches(conftest.draw_fit_like(classes=2))
matches(draw(classes=1, dimension=256, vectors=257, norm=3.0))

for norm in (1.0, 100.0):
    params, _ = draw(classes=1, dimension=256, norm=norm)
    for count in (256, 255):
        rotated = ciss_fast.cayley_rotate(params, torch.eye(256)[None, :count].contiguous()).double()[0]
        error = float((rotated @ rotated.T - torch.eye(count, dtype=torch.float64)).abs().max())
        assert error <= 1e-5, (norm, error)

for vectors in (None, 3, 20, 40):
    for norm in (1.0, 40.0):
        inputs = draw(classes=5, dimension=33, vectors=vectors, norm=norm)
        torch.set_num_threads(1)
        first = evaluate(inputs, backend="cpu")
        torch.set_num_threads(2)
        assert all(map(torch.equal, evaluate(inputs, backend="cpu"), first))
        for value in (float("nan"), float("inf"), float("-inf")):
            params, x = inputs.params.clone(), inputs.vectors.clone()
            params[2, -1], x[3, ..., 7] = value, value
            result = evaluate(conftest.Inputs(params, x), backend="cpu")
            assert result.rotated[2:4].isnan().all() and result.grad_params[2:4].isnan().all()
            assert torch.equal(result.rotated[:2], first.rotated[:2])

for file in sys.argv[2:]:
    with np.load(file) as arrays:
        params, memory = torch.from_numpy(arrays["params"]), torch.from_numpy(arrays["memory"])
        rotated = ciss_fast.cayley_rotate(params, memory, backend="cpu").double()
        expected = torch.from_numpy(arrays["memory_rotated"])
        assert (rotated - expected).abs().max() <= 1e-5 * expected.abs().max()
print(native.library.instruction_set(), len(sys.argv) - 2)
"""


@pytest.fixture(scope="session")
def golden_files(request) -> list[str]:
    """Paths of golden files, or nothing where there are none."""
    try:
        shared_file = request.getfixturevalue("shared_file")
    except pytest.skip.Exception:
        return []
    return [str(shared_file(str(Path("golden") / f"cayley_{name}.npz"))) for name in ("small", "256_init")]


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_instruction_set(run_in_instruction_set, golden_files, name) -> None:
    conftest = str(Path(__file__).with_name("conftest.py"))
    assert run_in_instruction_set(name, CHECKS, conftest, *golden_files) == f"{name} {len(golden_files)}\n"
