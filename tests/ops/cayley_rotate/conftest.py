"""Random rotations of a chosen norm, and comparison with the definition in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import ciss_fast
from ciss_fast import native


class Inputs(NamedTuple):
    """Arguments of `cayley_rotate`."""

    params: Tensor
    vectors: Tensor


class Result(NamedTuple):
    """The rotated vectors, and the gradients of <rotated, upstream>."""

    rotated: Tensor
    grad_params: Tensor
    grad_vectors: Tensor


def skew_matrices(params: Tensor, dimension: int) -> Tensor:
    """S [K, D, D] of packed parameters."""
    rows, columns = torch.triu_indices(dimension, dimension, 1)
    upper = params.new_zeros(len(params), dimension, dimension)
    upper[:, rows, columns] = params
    return (upper - upper.transpose(1, 2)) / 2


def draw_inputs(
    *,
    classes: int = 3,
    dimension: int = 16,
    vectors: int | None = None,
    norm: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Inputs:
    """Normal parameters scaled to the spectral norm ``norm`` of S, and normal vectors ([K, D] without ``vectors``)."""
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(classes, dimension * (dimension - 1) // 2, generator=generator, dtype=torch.float64)
    shape = (classes, dimension) if vectors is None else (classes, vectors, dimension)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    for one in params:
        if one.numel():
            one *= norm / float(torch.linalg.matrix_norm(skew_matrices(one[None], dimension)[0], 2))
    params_type = torch.float64 if dtype == torch.float64 else torch.float32
    return Inputs(params.to(params_type), x.to(dtype))


def draw_fit_like(classes: int = 3, dimension: int = 256, norm: float = 3.0, seed: int = 0) -> Inputs:
    """Rotations as fits find them: a few large singular values, the others falling off."""
    inputs = draw_inputs(classes=classes, dimension=dimension, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.triu_indices(dimension, dimension, 1)
    params = torch.empty(inputs.params.shape, dtype=torch.float64)
    for one in params:
        basis, _ = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64))
        planes = dimension // 2
        sigma = norm / (1 + torch.arange(planes, dtype=torch.float64)) ** 0.7
        skew = (basis[:, :planes] * sigma) @ basis[:, planes : 2 * planes].T
        one.copy_(2 * (skew - skew.T)[rows, columns])
    return inputs._replace(params=params.float())


def draw_upstream(inputs: Inputs, seed: int = 1) -> Tensor:
    """Incoming gradient: normal, of the vectors' shape and type."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(inputs.vectors.shape, generator=generator, dtype=torch.float64).to(inputs.vectors.dtype)


def evaluate(inputs: Inputs, upstream: Tensor | None = None, **options) -> Result:
    """Rotated vectors and both gradients."""
    params, vectors = (
        one.detach().clone(memory_format=torch.preserve_format).requires_grad_() for one in inputs
    )
    rotated = ciss_fast.cayley_rotate(params, vectors, **options)
    upstream = draw_upstream(inputs) if upstream is None else upstream
    return Result(rotated.detach(), *torch.autograd.grad(rotated, (params, vectors), upstream))


def define(inputs: Inputs, upstream: Tensor | None = None) -> Result:
    """The definition's answer in double precision, on the same (rounded) inputs."""
    upstream = draw_upstream(inputs) if upstream is None else upstream
    exact = Inputs(inputs.params.double(), inputs.vectors.double())
    return evaluate(exact, upstream.double(), backend="reference")


def assert_close(result: Result, expected: Result, inputs: Inputs, tolerance: float) -> None:
    """Rotated vectors and their gradient within ``tolerance`` of the largest entry, the gradient on the parameters
    within that of the largest products it is made of.

    Those are |x_i z_j| with x = (rotated + vector) / 2, z = (gradient + upstream) / 2: their difference may be small.
    """
    for name in ("rotated", "grad_vectors"):
        values, exact = getattr(result, name), getattr(expected, name)
        assert values.shape == exact.shape == inputs.vectors.shape
        if exact.numel():
            error, largest = float((values.double() - exact).abs().max()), float(exact.abs().max())
            assert error <= tolerance * largest, f"{name}: off by {error / max(largest, 1e-300):.2e} of its largest"
    assert result.grad_params.shape == expected.grad_params.shape == inputs.params.shape
    if expected.grad_params.numel():
        x = (expected.rotated + inputs.vectors.double()).reshape(len(inputs.params), -1, inputs.vectors.shape[-1]) / 2
        z = (expected.grad_vectors + draw_upstream(inputs).double()).reshape(x.shape) / 2
        products = (x.abs().amax(dim=2) * z.abs().amax(dim=2)).square().sum(dim=1).sqrt()
        error = (result.grad_params.double() - expected.grad_params).abs().amax(dim=1)
        assert (error <= 2 * tolerance * products).all(), f"grad_params: off by {float((error / products).max()):.2e}"


def assert_matches(inputs: Inputs, *, tolerance: float | None = None) -> tuple[Result, Result]:
    """Compare the kernel with the definition: within 2e-6 (1e-11 in double precision), and the rounding of a
    half-precision type."""
    double = torch.float64 in (inputs.params.dtype, inputs.vectors.dtype)
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(inputs.vectors.dtype, 0.0)
    result, expected = evaluate(inputs, backend="cpu"), define(inputs)
    for values, argument in zip(result, (inputs.vectors, *inputs), strict=True):
        assert values.dtype == argument.dtype
    if double and inputs.vectors.dtype != torch.float64:
        rounding += 2**-24
    assert_close(result, expected, inputs, tolerance or (1e-11 if double else 2e-6) + rounding)
    return result, expected


@pytest.fixture(scope="session")
def cayley_inputs() -> Callable[..., Inputs]:
    """Function that draws parameters and vectors: see `draw_inputs`."""
    return draw_inputs


@pytest.fixture(scope="session")
def cayley_fit_like() -> Callable[..., Inputs]:
    """Function that draws rotations as fits find them: see `draw_fit_like`."""
    return draw_fit_like


@pytest.fixture(scope="session")
def cayley_evaluate() -> Callable[..., Result]:
    """Function from inputs and options to rotated vectors and gradients: see `evaluate`."""
    return evaluate


@pytest.fixture(scope="session")
def cayley_define() -> Callable[..., Result]:
    """The same from the definition in double precision: see `define`."""
    return define


@pytest.fixture(scope="session")
def cayley_matches(needs_kernel: None) -> Callable[..., tuple[Result, Result]]:
    """Function that compares the kernel with the definition: see `assert_matches`."""
    return assert_matches


@pytest.fixture(scope="session")
def cayley_skew_matrices() -> Callable[..., Tensor]:
    """Function from packed parameters to S: see `skew_matrices`."""
    return skew_matrices


@pytest.fixture(scope="session")
def needs_kernel() -> None:
    """Skips where there are no compiled kernels."""
    reason = native.reason_without("cayley_rotate")
    if reason is not None:
        pytest.skip(f"no compiled kernels: {reason}")
