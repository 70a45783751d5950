"""Random fits of rotations, and comparison with the definition in double precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import ciss_fast
from ciss_fast import native


class Fit(NamedTuple):
    """Arguments of `rotation_loss`."""

    params: Tensor
    previous: Tensor
    current: Tensor
    weight: Tensor
    bias: Tensor
    fidelity_weight: float = 0.9

    def to(self, dtype: torch.dtype) -> Fit:
        return Fit(*(tensor.to(dtype) for tensor in self[:5]), self.fidelity_weight)


class Result(NamedTuple):
    """The loss, its terms, and the gradient of ``UPSTREAM`` times the loss."""

    total: Tensor
    fid: Tensor
    reg: Tensor
    gradient: Tensor


UPSTREAM = -3.0


def draw_fit(
    *,
    classes: int = 4,
    dimension: int = 24,
    groups: int | None = None,
    outputs: int = 9,
    scale: float = 0.5,
    seed: int = 0,
) -> Fit:
    """Normal everything; ``scale``: of the entries of S times the square root of the dimension, about half its norm."""
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(classes, dimension * (dimension - 1) // 2, generator=generator) * 2 * scale / dimension**0.5
    shape = (classes, dimension) if groups is None else (classes, groups, dimension)
    previous, current = (torch.randn(shape, generator=generator).relu_() for _ in range(2))
    weight = torch.randn(outputs, dimension, generator=generator)
    return Fit(params, previous, current, weight, torch.randn(outputs, generator=generator))


def evaluate(fit: Fit, **options) -> Result:
    """Loss, terms and gradient."""
    params = fit.params.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    total, terms = ciss_fast.rotation_loss(params, *fit[1:], **options)
    (gradient,) = torch.autograd.grad(total, params, torch.tensor(UPSTREAM, dtype=total.dtype))
    return Result(total.detach(), terms["fid"], terms["reg"], gradient)


def assert_matches(fit: Fit, *, tolerance: float = 1e-5, **options) -> Result:
    """Compare the kernel with the definition in double precision: the values, and the gradient relative to its largest
    entry."""
    result, expected = evaluate(fit, **options), evaluate(fit.to(torch.float64), backend="reference")
    for name in ("total", "fid", "reg"):
        value, exact = float(getattr(result, name)), float(getattr(expected, name))
        assert abs(value - exact) <= tolerance * max(abs(exact), 0.1), f"{name}: {value}, not {exact}"
    assert result.gradient.shape == fit.params.shape
    error, largest = (float(x.abs().max()) for x in (result.gradient.double() - expected.gradient, expected.gradient))
    assert error <= tolerance * max(largest, 1e-6), f"gradient: off by {error:.1e}, its largest entry is {largest:.1e}"
    return result


def assert_golden(file: Path, device: torch.device | str = "cpu", **options) -> None:
    """Compare with values of the paper's formulas in double precision, made elsewhere."""
    arrays = np.load(file)
    names = ("params", "proto_prev", "proto_curr", "cls_weight", "cls_bias")
    fit = Fit(*(torch.from_numpy(arrays[name]).float().to(device) for name in names), float(arrays["lam"]))
    result = evaluate(fit, **options)
    for name, value in {"loss_total": result.total, "loss_fid": result.fid, "loss_reg": result.reg}.items():
        assert abs(float(value) - float(arrays[name])) <= 1e-5 * abs(float(arrays[name])), name
    expected = UPSTREAM * torch.from_numpy(arrays["grad_params"]).double()
    assert float((result.gradient.cpu().double() - expected).abs().max()) <= 2e-5 * float(expected.abs().max())


@pytest.fixture(scope="session")
def rotation_golden() -> Callable[..., None]:
    """Function that compares with golden values: see `assert_golden`."""
    return assert_golden


@pytest.fixture(scope="session")
def rotation_fit() -> Callable[..., Fit]:
    """Function that draws arguments: see `draw_fit`."""
    return draw_fit


@pytest.fixture(scope="session")
def rotation_evaluate() -> Callable[..., Result]:
    """Function from arguments to loss, terms and gradient: see `evaluate`."""
    return evaluate


@pytest.fixture(scope="session")
def rotation_matches() -> Callable[..., Result]:
    """Function that compares with the definition: see `assert_matches`."""
    return assert_matches


@pytest.fixture
def needs_kernel() -> None:
    """Skips where there is no compiled kernel."""
    reason = native.reason_without("rotation_loss")
    if reason is not None:
        pytest.skip(f"no compiled kernel: {reason}")
