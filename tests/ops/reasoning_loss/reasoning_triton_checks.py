"""Checks of the Triton kernels of `reasoning_loss` (see triton_testing.py)."""

from __future__ import annotations

import math

import torch
from triton_inputs import conftest_of, fill_fresh_memory

shared = conftest_of(__file__)


def evaluate(inputs, device: torch.device, **options):
    """The kernel's result on the CPU."""
    fill_fresh_memory(device)
    moved = type(inputs)(*(x.to(device) for x in inputs))
    result = shared.evaluate(moved, backend="triton", **options)
    terms = {name: value.cpu() for name, value in result.terms.items()}
    return type(result)(result.total.cpu(), terms, result.feature.cpu(), result.weight.cpu())


def check(inputs, device: torch.device, *, tolerance: float | None = None, **options) -> None:
    """Within 1e-5 (1e-11 in double precision) of the definition, and the rounding of less precise gradients."""
    result, expected = evaluate(inputs, device, **options), shared.define(inputs, **options)
    double = inputs.feature.dtype == torch.float64
    assert result.total.dtype == (torch.float64 if double else torch.float32)
    assert result.feature.dtype == inputs.feature.dtype and result.weight.dtype == inputs.weight.dtype
    unit = max(torch.finfo(x.dtype).eps for x in inputs[:2])
    rounding = unit / 2 if unit > (1e-12 if double else 1e-4) else 0.0
    exact = tolerance or (1e-11 if double else 1e-5)
    shared.assert_close(result, expected, exact, exact, rounding)


def check_sizes(device: torch.device) -> None:
    for batch, size, classes, *channels in ((1, (1, 1), 1, 1, 1), (2, (5, 7), 5, 8, 11), (3, (9, 5), 40, 70, 3)):
        channels = dict(zip(("channels", "channels_old"), channels, strict=True))
        inputs = shared.draw_inputs(batch=batch, size=size, classes=classes, **channels)
        check(inputs, device, upstream=-2.5)


def check_terms(device: torch.device) -> None:
    inputs = shared.draw_inputs(channels=20, channels_old=9)
    for options in ({"pos": 2.0}, {"neg": 0.3}, {"pos": -1.5, "neg": 0.7}):
        check(inputs, device, upstream=3.0, **options)


def check_types(device: torch.device) -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        inputs = shared.draw_inputs(dtype=dtype)
        check(inputs, device, upstream=0.3)
        check(inputs._replace(weight=inputs.weight.float(), weight_old=inputs.weight_old.float()), device)


def check_several_chunks_of_pixels(device: torch.device) -> None:
    check(shared.draw_inputs(batch=1, size=(29, 41), classes=3, channels=5, channels_old=4), device)


def check_layouts(device: torch.device) -> None:
    inputs = shared.draw_inputs(channels=20, channels_old=9)
    expected = evaluate(inputs, device)
    last = shared.draw_inputs(channels=20, channels_old=9, memory_format=torch.channels_last)
    wide = torch.full((2, 20, 12, 14), torch.nan)
    wide[:, :, ::2, 1::2] = inputs.feature
    for view in (last, inputs._replace(feature=wide[:, :, ::2, 1::2], weight=inputs.weight.T.contiguous().T)):
        result = evaluate(view, device)
        assert torch.equal(result.total, expected.total) and torch.equal(result.feature, expected.feature)
        assert torch.equal(result.weight, expected.weight)


def check_agreement_on_large_scores(device: torch.device) -> None:
    # Student and teacher agree: what log(1 + e^z) - t z leaves of 40 is rounding.
    inputs = shared.draw_inputs(channels=6, channels_old=6, scale=8.0)
    inputs = inputs._replace(feature_old=inputs.feature, weight_old=inputs.weight)
    result, expected = evaluate(inputs, device), shared.define(inputs)
    for name in ("pos", "neg"):
        torch.testing.assert_close(result.terms[name].double(), expected.terms[name], rtol=1e-5, atol=0)


def check_weights_of_zero(device: torch.device) -> None:
    inputs = shared.draw_inputs()
    inputs.weight[:, ::2] = 0
    inputs.weight[2] = 0
    check(inputs, device)


def check_not_finite(device: torch.device) -> None:
    values = (math.nan, math.inf, -math.inf, math.nan)
    for value, name in zip(values, shared.Inputs._fields, strict=True):
        inputs = shared.draw_inputs()
        getattr(inputs, name)[0, 3] = value
        result = evaluate(inputs, device)
        assert result.total.isnan() and result.feature.isnan().all() and result.weight.isnan().all()
    inputs = shared.draw_inputs()
    inputs = inputs._replace(weight=inputs.weight.abs(), weight_old=inputs.weight_old.abs())
    inputs.feature[1, 2, 3, 4] = math.inf  # no class reads it
    assert evaluate(inputs, device, neg=1.0).total.isnan()


def check_no_pixels(device: torch.device) -> None:
    result = evaluate(shared.draw_inputs(batch=0), device)
    assert result.total == 0 and result.weight.eq(0).all() and result.feature.numel() == 0


def check_same_bits(device: torch.device) -> None:
    inputs = shared.draw_inputs(batch=1, size=(13, 11))
    first, second = (evaluate(inputs, device) for _ in range(2))
    assert torch.equal(first.total, second.total) and torch.equal(first.feature, second.feature)
    assert torch.equal(first.weight, second.weight)
