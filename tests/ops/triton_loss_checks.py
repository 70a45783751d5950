"""What the checks of both losses' Triton kernels share: evaluation on a device, comparison with the definition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from loss_testing import Inputs, LossUnderTest, Result, assert_close, same_bits
from torch.utils._python_dispatch import TorchDispatchMode

UPSTREAM = 2.5  # the incoming gradient, everywhere


@contextmanager
def nan_filled() -> Iterator[None]:
    """Every tensor torch makes without initialising it is full of NaN (integers: of the largest number)."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def move(inputs: Inputs, device: torch.device) -> Inputs:
    """The inputs on ``device``, with their strides."""
    return Inputs(*(None if x is None else x.to(device, memory_format=torch.preserve_format) for x in inputs))


def evaluate(loss: LossUnderTest, inputs: Inputs, device: torch.device, **options: Any) -> Result:
    """The Triton kernels' answer, on the CPU."""
    with nan_filled():
        result = loss.evaluate(move(inputs, device), backend="triton", upstream=UPSTREAM, **options)
    return Result(result.total.cpu(), {name: x.cpu() for name, x in result.terms.items()}, result.gradient.cpu())


def compare(
    loss: LossUnderTest,
    inputs: Inputs,
    device: torch.device,
    *,
    tolerance: float = 1e-5,
    absolute: float = 0.0,
    **options: Any,
) -> Result:
    """Compare with the definition in double precision: values relative, the gradient to its largest entry."""
    result = evaluate(loss, inputs, device, **options)
    expected = loss.define(inputs, upstream=UPSTREAM, **options)
    assert result.gradient.dtype == inputs.student.dtype and result.total.dtype == torch.float32
    assert result.gradient.stride() == torch.empty_like(inputs.student).stride()
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(inputs.student.dtype, 0.0)
    assert_close(result, expected, options, tolerance, tolerance + rounding, absolute)
    return result


def poisons(loss: LossUnderTest, inputs: Inputs, device: torch.device, **options: Any) -> None:
    """A NaN or an infinity, in the student or the teacher, makes the total and all of the gradient NaN."""
    for name, value in (("student", float("nan")), ("student", float("-inf")), ("teacher", float("inf"))):
        logits = getattr(inputs, name).clone()
        logits[-1, 1, -1, 0] = value
        result = evaluate(loss, inputs._replace(**{name: logits}), device, **options)
        assert result.total.isnan() and result.gradient.isnan().all(), (value, name)


def operator_works(loss: LossUnderTest, inputs: Inputs, device: torch.device, **options: Any) -> None:
    """torch.library.opcheck of the call that the public function makes, and torch.compile without a graph break."""
    calls = []
    operator = getattr(torch.ops.ciss_fast, loss.name)

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if function is operator.default:
                calls.append((arguments, keywords))
            return function(*arguments, **(keywords or {}))

    inputs = move(inputs, device)
    with Noting():
        expected = loss.evaluate(inputs, backend="triton", upstream=UPSTREAM, **options)
    ((arguments, keywords),) = calls
    student, *others = arguments
    torch.library.opcheck(operator, (student.detach().requires_grad_(), *others), keywords)
    compiled = torch.compile(loss.function, fullgraph=True, backend="aot_eager", dynamic=False)
    result = replace(loss, function=compiled).evaluate(inputs, backend="triton", upstream=UPSTREAM, **options)
    assert same_bits(result, expected)


def takes_single_precision_alone(loss: LossUnderTest, inputs: Inputs, device: torch.device) -> None:
    """Double precision is refused where the backend is named; on a GPU the reference serves where it is not."""
    double = Inputs(inputs.student.double(), inputs.teacher.double(), inputs.label)
    message = f"^{loss.name}: GPU kernels take float32, bfloat16 or float16, got float64"
    with pytest.raises(TypeError, match=message):
        evaluate(loss, double, device, **loss.mix)
    if device.type == "cuda":
        loss.evaluate(move(double, device), **loss.mix)


def takes_as_many_images_as_a_grid(loss: LossUnderTest, inputs: Inputs, device: torch.device) -> None:
    """More images than a grid has programs along an axis are refused in one line, before anything is launched."""
    many = Inputs(*(x[:1].expand(70_000, *x.shape[1:]) for x in inputs))
    with pytest.raises(ValueError, match=f"^{loss.name}: the Triton kernels take at most 65535 images, got 70000$"):
        evaluate(loss, many, device, **loss.mix)
