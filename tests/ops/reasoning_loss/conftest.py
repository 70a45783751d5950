"""Random inputs for the reasoning loss, and comparison with its definition in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import ciss_fast
from ciss_fast import native

BOTH = {"pos": 5.0, "neg": 3.0}


class Inputs(NamedTuple):
    """Arguments of `reasoning_loss` that are tensors."""

    feature: Tensor
    weight: Tensor
    feature_old: Tensor
    weight_old: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        """All of them as ``dtype``."""
        return Inputs(*(x.to(dtype) for x in self))


class Result(NamedTuple):
    """What a call returned, and the gradients (None where they were not asked for)."""

    total: Tensor
    terms: dict[str, Tensor]
    feature: Tensor | None
    weight: Tensor | None


def draw_inputs(
    *,
    batch: int = 2,
    channels: int = 8,
    channels_old: int = 8,
    classes: int = 5,
    size: tuple[int, int] = (6, 7),
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
    seed: int = 0,
) -> Inputs:
    """Normal features of deviation ``scale`` and normal classifiers, the teacher's independent of the student's."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    feature, feature_old = (normal(batch, d, *size) * scale for d in (channels, channels_old))
    return Inputs(
        feature.contiguous(memory_format=memory_format),
        normal(classes, channels),
        feature_old.contiguous(memory_format=memory_format),
        normal(classes, channels_old),
    )


def evaluate(inputs: Inputs, *, upstream: float = 1.0, **options) -> Result:
    """Loss, terms and gradients with copies of feature and weight as leaves; ``upstream`` is the incoming gradient."""
    options = options if {"pos", "neg"} & options.keys() else BOTH | options
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs[:2]]
    total, terms = ciss_fast.reasoning_loss(*leaves, *inputs[2:], **options)
    gradients = torch.autograd.grad(total, leaves, torch.tensor(upstream, dtype=total.dtype))
    return Result(total.detach(), terms, *gradients)


def define(inputs: Inputs, **options) -> Result:
    """The definition's answer in double precision, on the same (rounded) inputs."""
    return evaluate(inputs.to(torch.float64), **(options | {"backend": "reference"}))


def relative_error(values: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected magnitude."""
    if expected.numel() == 0:
        return 0.0
    difference = (values.double() - expected.double()).abs().max()
    return float(difference / expected.abs().max().clamp(min=1e-300))


def assert_close(result: Result, expected: Result, loss: float, gradient: float, rounding: float = 0.0) -> None:
    """Total and terms within ``loss`` relative; gradients within ``gradient`` (and ``rounding``) of their largest."""
    assert result.terms.keys() == expected.terms.keys()
    pairs = {"total": (result.total, expected.total)}
    pairs |= {name: (result.terms[name], value) for name, value in expected.terms.items()}
    for name, (value, exact) in pairs.items():
        error = abs(float(value) - float(exact))
        assert error <= loss * abs(float(exact)), f"{name}: {float(value)}, expected {float(exact)}"
    for name in ("feature", "weight"):
        values, exact = getattr(result, name), getattr(expected, name)
        assert values.shape == exact.shape
        error = relative_error(values, exact)
        assert error <= gradient + rounding, f"gradient on the {name}: off by {error:.2e} of its largest"


def assert_matches(
    inputs: Inputs, *, loss: float | None = None, gradient: float | None = None, **options
) -> tuple[Result, Result]:
    """Compare the kernel with the definition.

    Tolerances by default: 1e-5 (1e-11 in double precision), and the rounding of less precise gradients besides.
    """
    result, expected = evaluate(inputs, backend="cpu", **options), define(inputs, **options)
    double = inputs.feature.dtype == torch.float64
    assert result.total.dtype == (torch.float64 if double else torch.float32)
    assert result.feature.dtype == inputs.feature.dtype and result.weight.dtype == inputs.weight.dtype
    unit = max(torch.finfo(x.dtype).eps for x in inputs[:2])
    rounding = unit / 2 if unit > (1e-12 if double else 1e-4) else 0.0
    exact = 1e-11 if double else 1e-5
    assert_close(result, expected, loss or exact, gradient or exact, rounding)
    return result, expected


@pytest.fixture(scope="session")
def reasoning_inputs() -> Callable[..., Inputs]:
    """Function that draws features and classifiers: see `draw_inputs`."""
    return draw_inputs


@pytest.fixture(scope="session")
def reasoning_evaluate() -> Callable[..., Result]:
    """Function from inputs and options to total, terms and gradients: see `evaluate`."""
    return evaluate


@pytest.fixture(scope="session")
def reasoning_define() -> Callable[..., Result]:
    """The same from the definition in double precision: see `define`."""
    return define


@pytest.fixture(scope="session")
def reasoning_close() -> Callable[..., None]:
    """Function that compares two results: see `assert_close`."""
    return assert_close


@pytest.fixture(scope="session")
def reasoning_matches(needs_kernel: None) -> Callable[..., tuple[Result, Result]]:
    """Function that compares the kernel with the definition: see `assert_matches`."""
    return assert_matches


@pytest.fixture(scope="session")
def needs_kernel() -> None:
    """Skips where there is no compiled kernel."""
    reason = native.reason_without("reasoning_loss")
    if reason is not None:
        pytest.skip(f"no compiled kernel: {reason}")
