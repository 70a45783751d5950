"""The softmax loss for the tests of this folder: see `loss_testing`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from loss_testing import SOFTMAX, Inputs, Result, assert_close, skip_without_kernel


@pytest.fixture(scope="session")
def softmax_inputs() -> Callable[..., Inputs]:
    """Function that draws student, teacher and label: see `LossUnderTest.draw`."""
    return SOFTMAX.draw


@pytest.fixture(scope="session")
def softmax_evaluate() -> Callable[..., Result]:
    """Function from inputs and options to total, terms and gradient: see `LossUnderTest.evaluate`."""
    return SOFTMAX.evaluate


@pytest.fixture(scope="session")
def softmax_define() -> Callable[..., Result]:
    """The same from the definition in double precision: see `LossUnderTest.define`."""
    return SOFTMAX.define


@pytest.fixture(scope="session")
def softmax_close() -> Callable[..., None]:
    """Function that compares two results: see `assert_close`."""
    return assert_close


@pytest.fixture(scope="session")
def softmax_matches(needs_kernel: None) -> Callable[..., tuple[Result, Result]]:
    """Function that compares the kernel with the definition: see `LossUnderTest.matches`."""
    return SOFTMAX.matches


@pytest.fixture(scope="session")
def needs_kernel() -> None:
    """Skips where there is no compiled kernel."""
    skip_without_kernel(SOFTMAX)
