"""`PrototypeAccumulator`: batches give what one batch of all positions gives."""

from __future__ import annotations

import pytest
import torch

import ciss_fast
from ciss_fast import PrototypeAccumulator


def accumulated(inputs, parts, backend, temperature=10.0):
    accumulator = PrototypeAccumulator(inputs.memory, temperature, backend=backend)
    for part in parts:
        accumulator.update(inputs.feature_prev[part], inputs.feature_curr[part])
    return accumulator


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("temperature", [10.0, 0.01, 300.0])
def test_batches_in_any_order(
    dtype, tolerance, temperature, backend, prototype_inputs, define_prototypes, prototypes_close
) -> None:
    inputs = prototype_inputs(90, dtype=dtype)
    expected = define_prototypes(inputs, temperature)
    parts = [slice(0, 1), slice(1, 40), slice(40, 41), slice(41, 90)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        result = accumulated(inputs, [parts[i] for i in order], backend, temperature).result()
        assert result[0].dtype == result[1].dtype == dtype
        prototypes_close(result, expected, tolerance if temperature <= 10 else 30 * tolerance)


def test_one_batch_is_prototypes(backend, prototype_inputs) -> None:
    inputs = prototype_inputs()
    result = accumulated(inputs, [slice(None)], backend).result()
    for value, expected in zip(result, ciss_fast.prototypes(*inputs, backend=backend), strict=True):
        assert torch.equal(value, expected)


def test_merge(backend, prototype_inputs, define_prototypes, prototypes_close) -> None:
    inputs = prototype_inputs(90, dtype=torch.float64)
    first = accumulated(inputs, [slice(0, 20), slice(20, 30)], backend)
    second = accumulated(inputs._replace(memory=inputs.memory.clone()), [slice(30, 90)], backend)
    before = second.result()
    empty = PrototypeAccumulator(inputs.memory)
    first.merge(empty)
    first.merge(second)
    empty.merge(first)
    prototypes_close(first.result(), define_prototypes(inputs), 1e-13)
    for value, expected in zip(empty.result() + second.result(), first.result() + before, strict=True):
        assert torch.equal(value, expected)


def test_a_batch_far_better_than_the_others(backend, prototype_inputs, prototypes_close) -> None:
    # Its scores exceed the others' by more than exp can hold.
    inputs = prototype_inputs(60, per_class=40)
    batches = [inputs._replace(feature_prev=-inputs.memory.mean(dim=(0, 1)).expand(60, -1)), inputs]
    alone = ciss_fast.prototypes(*inputs, 1e4, backend=backend)
    for order in (batches, batches[::-1]):
        accumulator = PrototypeAccumulator(inputs.memory, 1e4, backend=backend)
        for batch in order:
            accumulator.update(batch.feature_prev, batch.feature_curr)
        prototypes_close(accumulator.result(), alone, 1e-6)


def test_errors(prototype_inputs) -> None:
    inputs = prototype_inputs()
    accumulator = PrototypeAccumulator(inputs.memory)
    with pytest.raises(RuntimeError, match="^result: expected at least one batch before, got none$"):
        accumulator.result()
    accumulator.update(*inputs[:2])
    before = accumulator.result()
    with pytest.raises(ValueError, match="^feature_curr: expected "):
        accumulator.update(inputs.feature_prev, inputs.feature_curr[:-1])
    with pytest.raises(ValueError, match="^feature_prev: expected .*P >= 1"):
        accumulator.update(inputs.feature_prev[:0], inputs.feature_curr[:0])
    with pytest.raises(TypeError, match="^other: expected a PrototypeAccumulator, got Tensor$"):
        accumulator.merge(inputs.memory)
    with pytest.raises(ValueError, match="^other: expected temperature 10.0, got 5.0$"):
        accumulator.merge(PrototypeAccumulator(inputs.memory, 5.0))
    for memory in (inputs.memory + 1, inputs.memory[:2], inputs.memory.double(), inputs.memory.to("meta")):
        with pytest.raises(ValueError, match="^other: expected the same memory"):
            accumulator.merge(PrototypeAccumulator(memory))
    with pytest.raises(ValueError, match="^memory: expected "):
        PrototypeAccumulator(inputs.memory[0])
    with pytest.raises(ValueError, match="^temperature: expected "):
        PrototypeAccumulator(inputs.memory, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(accumulator.result(), before, strict=True))
