"""Every loss on logits in turn, for what the losses have in common."""

from __future__ import annotations

import pytest
from loss_testing import LOSSES, LossUnderTest, skip_without_kernel


@pytest.fixture(params=LOSSES, ids=lambda loss: loss.name)
def loss(request: pytest.FixtureRequest) -> LossUnderTest:
    """A loss whose compiled kernel can run."""
    skip_without_kernel(request.param)
    return request.param
