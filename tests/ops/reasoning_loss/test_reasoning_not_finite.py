"""A NaN or an infinity among features or weights comes out as NaN, in the loss and in both gradients."""

from __future__ import annotations

import math

import pytest
import torch

VALUES = [float("nan"), float("inf"), float("-inf")]
TENSORS = ("feature", "weight", "feature_old", "weight_old")
FORMATS = [torch.contiguous_format, torch.channels_last]
SIZES = [(1, (1, 1)), (9, (6, 7)), (2, (40, 41))]


@pytest.fixture(params=["reference", "cpu"])
def backend(request) -> str:
    if request.param == "cpu":
        request.getfixturevalue("needs_kernel")
    return request.param


def broken(inputs, name: str, place: int, value: float):
    tensor = getattr(inputs, name).clone(memory_format=torch.preserve_format)
    index = torch.unravel_index(torch.tensor(place % tensor.numel()), tensor.shape)
    tensor[tuple(int(i) for i in index)] = value
    return inputs._replace(**{name: tensor})


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_anywhere(reasoning_inputs, reasoning_evaluate, backend, value, name, memory_format) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        for batch, size in SIZES:
            inputs = reasoning_inputs(batch=batch, size=size, dtype=dtype, memory_format=memory_format)
            for place in (0, -1, 77):
                for options in ({"pos": 1.0}, {"neg": 1.0}, {"pos": 1.0, "neg": 1.0}):
                    unread = {("pos",): -math.inf, ("neg",): math.inf}.get(tuple(options))
                    if "weight" in name and value == unread:
                        continue  # the part of the weight that the term reads is finite
                    result = reasoning_evaluate(broken(inputs, name, place, value), backend=backend, **options)
                    assert result.total.isnan(), (dtype, size, place, options)
                    if backend == "cpu":
                        assert result.feature.isnan().all() and result.weight.isnan().all()


@pytest.mark.parametrize("name", TENSORS)
def test_without_any_gradient(reasoning_inputs, name, backend) -> None:
    import ciss_fast

    inputs = broken(reasoning_inputs(), name, 5, float("nan"))
    total, terms = ciss_fast.reasoning_loss(*inputs, pos=1.0, neg=1.0, backend=backend)
    assert total.isnan() and terms["pos"].isnan() | terms["neg"].isnan()


def test_products_that_overflow(reasoning_inputs, reasoning_evaluate, backend) -> None:
    # Every number is finite, a score is not.
    inputs = reasoning_inputs()
    for name in TENSORS:
        huge = inputs._replace(**{name: getattr(inputs, name) * 1e38})
        assert reasoning_evaluate(huge, backend=backend).total.isnan()


def test_overflow_of_half_precision(reasoning_inputs, reasoning_evaluate, needs_kernel) -> None:
    inputs = reasoning_inputs()
    feature = inputs.feature.clone()
    feature[0, 0, 0, 0] = 70000.0
    assert reasoning_evaluate(inputs._replace(feature=feature), backend="cpu").total.isfinite()
    assert reasoning_evaluate(inputs._replace(feature=feature.half()), backend="cpu").total.isnan()


def test_the_next_call_is_clean(reasoning_inputs, reasoning_evaluate, needs_kernel) -> None:
    for batch, size in SIZES:
        inputs = reasoning_inputs(batch=batch, size=size)
        expected = reasoning_evaluate(inputs, backend="cpu")
        nan = inputs._replace(feature=inputs.feature * float("nan"))
        assert reasoning_evaluate(nan, backend="cpu").total.isnan()
        result = reasoning_evaluate(inputs, backend="cpu")
        assert torch.equal(result.total, expected.total) and torch.equal(result.feature, expected.feature)
        assert torch.equal(result.weight, expected.weight)


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_feature_that_no_class_reads(reasoning_inputs, reasoning_evaluate, backend, memory_format, value) -> None:
    # The negative parts of the weights are 0 everywhere, and 0 times what is not finite is NaN.
    for batch, size in SIZES:
        inputs = reasoning_inputs(batch=batch, size=size, memory_format=memory_format)
        inputs = inputs._replace(weight=inputs.weight.abs(), weight_old=inputs.weight_old.abs())
        assert reasoning_evaluate(inputs, backend=backend, neg=1.0).total.isfinite()
        for name in ("feature", "feature_old"):
            for place in (0, -1, 77):
                assert reasoning_evaluate(broken(inputs, name, place, value), backend=backend, neg=1.0).total.isnan()
