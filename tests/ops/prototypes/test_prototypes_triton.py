"""The Triton kernels of `prototypes` compiled ahead of time; what TF32 costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from triton_compilation import ARCHITECTURES, compiled, recorded_launches, skip_without_compiler

SPILLS = 64  # bytes a thread may spill


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled(dtype: torch.dtype, architecture: int) -> None:
    skip_without_compiler()
    from ciss_fast.ops.prototypes.triton_launch import prototypes_triton

    features = torch.zeros(2, 640, 256, dtype=dtype)
    memory = torch.zeros(20, 200, 256, dtype=dtype)
    launches = recorded_launches(lambda: prototypes_triton(*features, memory, 10.0))
    names = ["lengths_kernel", "lengths_kernel", "scores_kernel", "softmax_kernel", "weighted_sums_kernel"]
    assert [launch.name for launch in launches] == names
    for launch in launches:
        binary = compiled(launch, architecture)
        assert binary.spills <= SPILLS, (launch.name, binary.spills)
        if launch.name == "scores_kernel":  # the product is the tensor cores', three of TF32 or one of bfloat16
            product = "tf32" if dtype == torch.float32 else "bf16"
            instructions = [line for line in binary.ptx.splitlines() if "mma" in line]
            assert any(product in line for line in instructions) or architecture == 100


def tf32(x: Tensor) -> Tensor:
    """Single precision cut to the 10 bits behind the point that tensor cores read."""
    return torch.from_numpy((x.contiguous().numpy().view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32))


def product_in_order(memory: Tensor, position: Tensor) -> Tensor:
    """[K, S, D] times [N, D] -> [K, S, N] in single precision, each sum in its order and each term rounded: libraries'
    products have another error on every processor.
    """
    total = torch.zeros(*memory.shape[:2], len(position))
    for m, p in zip(memory.unbind(-1), position.unbind(-1), strict=True):
        total += m[..., None] * p
    return total


def test_three_tf32_products_are_a_single_precision_one(close_positions, prototype_scores) -> None:
    # What "tf32x3" computes, written out, on scores of several thousand: the exponents have to be known to thousandths.
    inputs = close_positions(300, 2, 1000, 256)
    position, memory = inputs.feature_prev, inputs.memory  # lengths are divided by afterwards, as in the kernel
    lengths = position.double().norm(dim=-1), memory.double().norm(dim=-1, keepdim=True)
    parts = [(tf32(t), tf32(t - tf32(t))) for t in (position, memory)]
    (position_high, position_low), (memory_high, memory_low) = parts

    def scores(*products: tuple[Tensor, Tensor]) -> Tensor:
        product = sum(product_in_order(m, p) for m, p in products)
        return (product.relu().double() / lengths[1]).sum(dim=1) / lengths[0]

    exact = prototype_scores(inputs)
    three = scores((memory_high, position_low), (memory_low, position_high), (memory_high, position_high))
    one = scores((memory_high, position_high))

    def error(approximate: Tensor) -> float:  # softmax sees differences between positions
        difference = 10 * (approximate - exact)
        return float((difference - difference.mean(dim=1, keepdim=True)).abs().max())

    assert error(three) < 5e-4
    assert error(three) < 4 * error(scores((memory, position)))
    assert error(one) > 100 * error(three)
