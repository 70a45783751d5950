"""The Triton kernels of `rotation_loss` compiled ahead of time."""

from __future__ import annotations

import pytest
import torch
from triton_compilation import ARCHITECTURES, compiled, recorded_launches, skip_without_compiler

SPILLS = 256  # bytes of local memory a thread may need
KERNELS = ["unpack_kernel", "means_kernel", "fit_kernel", "fit_directly_kernel", "finish_kernel", "gradient_kernel"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiled(rotation_fit, architecture: int) -> None:
    skip_without_compiler()
    from ciss_fast.ops.rotation_loss.triton_launch import rotation_loss

    fit = rotation_fit(classes=2, dimension=256, groups=2, outputs=21)
    launches = recorded_launches(lambda: rotation_loss(*fit, True))
    assert [launch.name for launch in launches] == KERNELS
    for launch in launches[1:5]:  # the others are those of cayley_rotate
        binary = compiled(launch, architecture)
        assert binary.spills <= SPILLS, (launch.name, binary.spills)
        assert binary.shared <= 65536


@pytest.mark.slow
def test_compiled_in_double_precision_and_for_one_class(rotation_fit) -> None:
    skip_without_compiler()
    from ciss_fast.ops.rotation_loss.triton_launch import rotation_loss

    for fit in (rotation_fit(dimension=64).to(torch.float64), rotation_fit(classes=1, dimension=1, outputs=1)):
        launches = recorded_launches(lambda fit=fit: rotation_loss(*fit, True))
        for launch in launches:
            compiled(launch, 90)
