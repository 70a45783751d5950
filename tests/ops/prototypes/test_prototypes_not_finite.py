"""`prototypes`: NaN and infinity come out where they went in, and nowhere else."""

from __future__ import annotations

import pytest
import torch

import ciss_fast

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
VALUES = [float("nan"), float("inf"), float("-inf")]


@pytest.fixture(params=[(40, 13), (1300, 256)], ids=["one block", "blocks"])
def inputs(request, prototype_inputs):
    positions, dimension = request.param
    return prototype_inputs(positions, 3, 15, dimension)


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_the_previous_features(dtype, value, backend, inputs) -> None:
    last = len(inputs.feature_prev) - 1
    for place in ((0, 0), (last, 12), (last // 2, 5)):
        prev = inputs.feature_prev.to(dtype)
        prev[place] = value
        result = ciss_fast.prototypes(prev, inputs.feature_curr.to(dtype), inputs.memory.to(dtype), backend=backend)
        assert result[0].isnan().all() and result[1].isnan().all()


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_the_memory(dtype, value, backend, inputs) -> None:
    inputs = type(inputs)(*(t.to(dtype) for t in inputs))
    clean = ciss_fast.prototypes(*inputs, backend=backend)
    for place in ((0, 0, 0), (1, 14, 12), (2, 12, 3)):
        memory = inputs.memory.clone()
        memory[place] = value
        result = ciss_fast.prototypes(*inputs[:2], memory, backend=backend)
        others = [c for c in range(3) if c != place[0]]
        for values, expected in zip(result, clean, strict=True):
            assert values[place[0]].isnan().all()
            assert torch.equal(values[others], expected[others])


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_the_current_features(dtype, value, backend, inputs) -> None:
    inputs = type(inputs)(*(t.to(dtype) for t in inputs))
    clean = ciss_fast.prototypes(*inputs, backend=backend)
    last = len(inputs.feature_prev) - 1
    for place in ((0, 0), (last, 12), (last // 2, 5)):
        curr = inputs.feature_curr.clone()
        curr[place] = value
        prev_result, curr_result = ciss_fast.prototypes(inputs.feature_prev, curr, inputs.memory, backend=backend)
        assert torch.equal(prev_result, clean[0])
        others = [d for d in range(curr.shape[1]) if d != place[1]]
        assert not curr_result[:, place[1]].isfinite().any()
        torch.testing.assert_close(curr_result[:, others], clean[1][:, others])


def test_a_batch_that_is_not_finite_shows_in_the_accumulator(backend, inputs) -> None:
    accumulator = ciss_fast.PrototypeAccumulator(inputs.memory, backend=backend)
    accumulator.update(*inputs[:2])
    accumulator.update(inputs.feature_prev * torch.nan, inputs.feature_curr)
    accumulator.update(*inputs[:2])
    assert all(value.isnan().all() for value in accumulator.result())
