"""The Triton kernels of `cayley_rotate` compiled ahead of time."""

from __future__ import annotations

import pytest
import torch
from triton_compilation import ARCHITECTURES, compiled, recorded_launches, skip_without_compiler

SPILLS = 256  # bytes of local memory a thread may need


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("vectors", [1, 16])
def test_compiled(vectors: int, architecture: int) -> None:
    skip_without_compiler()
    from ciss_fast.ops.cayley_rotate.triton_launch import cayley_rotate_backward_triton, cayley_rotate_triton

    params, x = torch.zeros(2, 256 * 255 // 2), torch.zeros(2, vectors, 256)
    launches = recorded_launches(lambda: cayley_rotate_triton(params, x, True))
    iterations = torch.zeros(2, dtype=torch.int32)
    factors = torch.zeros(0, dtype=torch.uint8)
    launches += recorded_launches(lambda: cayley_rotate_backward_triton(params, x, factors, iterations, x, True))[-1:]
    few = ["unpack_kernel", "krylov_kernel", "elimination_kernel", "gradient_kernel"]
    many = ["unpack_kernel", "elimination_kernel", "apply_kernel", "gradient_kernel"]
    assert [launch.name for launch in launches] == (few if vectors == 1 else many)
    for launch in launches:
        binary = compiled(launch, architecture)
        assert binary.spills <= SPILLS, (launch.name, binary.spills)
        assert binary.shared <= 65536
