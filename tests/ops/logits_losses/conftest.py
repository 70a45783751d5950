"""Every loss on logits in turn, for what the losses have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loss_testing import LOSSES, LossUnderTest, one_thread, skip_without_kernel


@pytest.fixture(params=LOSSES, ids=lambda loss: loss.name)
def loss(request: pytest.FixtureRequest) -> LossUnderTest:
    """A loss whose compiled kernel can run."""
    skip_without_kernel(request.param)
    return request.param


@pytest.fixture(autouse=True)
def small_maps() -> Iterator[None]:
    """A single thread unless a test sets more."""
    with one_thread():
        yield
