"""Random features and memories, and comparison with the definition of `prototypes` in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import ciss_fast


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


def define(inputs: Inputs, temperature: float = 10.0) -> tuple[Tensor, Tensor]:
    """The formulas in double precision on the same (rounded) inputs, with every score written down."""
    prev, curr, memory = (t.double() for t in inputs)
    lengths = memory.norm(dim=2)[:, :, None] * prev.norm(dim=1)
    dots = torch.einsum("ksd,pd->ksp", memory, prev)
    cosine = torch.where(lengths > 0, dots / lengths, torch.zeros_like(dots))
    weight = (temperature * cosine.relu().sum(dim=1)).softmax(dim=1)
    return weight @ prev, weight @ curr


def assert_close(result: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float) -> None:
    """Within ``tolerance`` of the largest entry."""
    for name, value, exact in zip(("prev", "curr"), result, expected, strict=True):
        assert value.shape == exact.shape
        if exact.numel():
            error = float((value.double() - exact.double()).abs().max() / exact.abs().max())
            assert error <= tolerance, f"{name}: off by {error:.2e} of the largest entry"


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


@pytest.fixture(params=["reference"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend by name."""
    assert request.param in ciss_fast.backends.table()["prototypes"]
    return request.param


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A single thread unless a test sets more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
