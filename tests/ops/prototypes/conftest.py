"""Random features and memories, and comparison with the definition of `prototypes` in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import ciss_fast
from ciss_fast import native


class Inputs(NamedTuple):
    """Arguments of `prototypes` that are tensors."""

    feature_prev: Tensor
    feature_curr: Tensor
    memory: Tensor


def draw(
    positions: int = 50,
    classes: int = 3,
    per_class: int = 7,
    dimension: int = 13,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Inputs:
    """Features around a few directions, as after training, so that the scores of positions differ by little."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    centres = normal(classes, dimension)
    # Positions of a class as many as those of the next: its score decides between them by their noise.
    which = torch.arange(positions) % max(classes, 1)
    feature_prev = (centres[which] if classes else 0) + normal(positions, dimension)
    feature_curr = normal(positions, dimension)
    memory = centres[:, None] + normal(classes, per_class, dimension)
    return Inputs(*(t.to(dtype) for t in (feature_prev, feature_curr, memory)))


def draw_close(
    positions: int, classes: int, per_class: int, dimension: int, dtype: torch.dtype = torch.float32
) -> Inputs:
    """Positions so much alike that the softmax spreads over them: errors of the scores show in the weights."""
    generator = torch.Generator().manual_seed(1)
    inputs = draw(positions, classes, per_class, dimension)
    noise = torch.randn(positions, dimension, generator=generator)
    feature_prev = inputs.memory.mean(dim=(0, 1)) * 3 + noise * (3 / per_class)
    return Inputs(*(t.to(dtype) for t in (feature_prev, inputs.feature_curr, inputs.memory)))


def scores(inputs: Inputs) -> Tensor:
    """v_c(p) in double precision, [K, P]."""
    prev, memory = inputs.feature_prev.double(), inputs.memory.double()
    directions = [t / t.norm(dim=-1, keepdim=True).clamp(min=1e-12) for t in (prev, memory)]
    return (directions[1] @ directions[0].T).relu().sum(dim=1)


def define(inputs: Inputs, temperature: float = 10.0) -> tuple[Tensor, Tensor]:
    """The formulas in double precision on the same (rounded) inputs, with every score written down."""
    weight = (temperature * scores(inputs)).softmax(dim=1)
    return weight @ inputs.feature_prev.double(), weight @ inputs.feature_curr.double()


def assert_close(
    result: tuple[Tensor, Tensor],
    expected: tuple[Tensor, Tensor],
    tolerance: float,
    scales: tuple[float, float] | None = None,
) -> None:
    """Within ``tolerance`` of the scale, by default of the largest entry."""
    for i, (value, exact) in enumerate(zip(result, expected, strict=True)):
        assert value.shape == exact.shape
        if exact.numel():
            scale = float(exact.abs().max()) if scales is None else scales[i]
            error = float((value.double() - exact.double()).abs().max())
            assert error <= tolerance * scale, f"{('prev', 'curr')[i]}: off by {error / max(scale, 1e-300):.2e}"


def assert_matches(inputs: Inputs, *, temperature: float = 10.0, backend: str, tolerance: float | None = None) -> None:
    """A backend's prototypes are those of the formulas, and of the type that goes with the inputs.

    The error is measured against the largest feature: averages of many features can be small by chance.
    """
    double = torch.float64 in [t.dtype for t in inputs]
    result = ciss_fast.prototypes(*inputs, temperature, backend=backend)
    assert {t.dtype for t in result} == {torch.float64 if double else torch.float32}
    scales = tuple(float(t.double().abs().max()) for t in inputs[:2])
    assert_close(result, define(inputs, temperature), tolerance or (1e-12 if double else 1e-5), scales)


@pytest.fixture(scope="session")
def prototype_inputs() -> Callable[..., Inputs]:
    """Function that draws features and memory: see `draw`."""
    return draw


@pytest.fixture(scope="session")
def define_prototypes() -> Callable[..., tuple[Tensor, Tensor]]:
    """The formulas in double precision: see `define`."""
    return define


@pytest.fixture(scope="session")
def prototypes_close() -> Callable[..., None]:
    """Function that compares two results: see `assert_close`."""
    return assert_close


@pytest.fixture(scope="session")
def close_positions() -> Callable[..., Inputs]:
    """Function that draws positions that are much alike: see `draw_close`."""
    return draw_close


@pytest.fixture(scope="session")
def prototype_scores() -> Callable[[Inputs], Tensor]:
    """Function from inputs to the scores of all positions: see `scores`."""
    return scores


@pytest.fixture(scope="session")
def prototypes_match() -> Callable[..., None]:
    """Function that compares a backend with the formulas: see `assert_matches`."""
    return assert_matches


@pytest.fixture(scope="session")
def kernel() -> None:
    """Skips what needs the compiled kernels where they are missing."""
    reason = native.reason_without("prototypes")
    if reason is not None:
        pytest.skip(f"no compiled kernel: {reason}")


@pytest.fixture(params=["cpu", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend by name; the compiled one is skipped where it is missing."""
    if request.param == "cpu":
        request.getfixturevalue("kernel")
    return request.param
