"""The Triton kernels of `reasoning_loss` compiled ahead of time."""

from __future__ import annotations

import pytest
import torch
from triton_compilation import ARCHITECTURES, compiled, recorded_launches, skip_without_compiler

SPILLS = 256  # bytes of local memory a thread may need


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled(architecture: int) -> None:
    skip_without_compiler()
    from ciss_fast.ops.reasoning_loss.triton_launch import reasoning_loss_triton

    features = [torch.zeros(2, 256, 32, 32) for _ in range(2)]
    weights = [torch.zeros(101, 256) for _ in range(2)]
    arguments = (features[0], weights[0], features[1], weights[1], [5.0, 5.0], True, True)
    launches = recorded_launches(lambda: reasoning_loss_triton(*arguments))
    names = ["scores_kernel", "feature_gradient_kernel", "weight_gradient_kernel"]
    assert [launch.name for launch in launches] == names
    for launch in launches:
        binary = compiled(launch, architecture)
        assert binary.spills <= SPILLS, (launch.name, binary.spills)
