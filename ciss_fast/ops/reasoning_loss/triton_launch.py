"""Launches of the Triton kernels of `reasoning_loss`."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of
from ..loss_operator import empty_gradient, result_type
from ..triton_sizes import two_floats
from .options import TERMS, ReasoningLossOptions, check_options, check_student_and_teacher
from .triton_kernels import feature_gradient_kernel, scores_kernel, weight_gradient_kernel

# Two TF32 numbers stand for a float32 one, three of their products for its product.
PRECISION = "tf32x3"
PIXELS_OF_CHUNK = 1024


def reasoning_loss_triton(
    feature: Tensor,
    weight: Tensor,
    feature_old: Tensor,
    weight_old: Tensor,
    weights: list[float],
    need_feature_gradient: bool,
    need_weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The kernel of ``ciss_fast::reasoning_loss``."""
    check_student_and_teacher(feature, weight, feature_old, weight_old)
    if len(weights) != len(TERMS):
        raise ValueError(f"weights: expected {len(TERMS)} values, got {len(weights)}")
    check_options(ReasoningLossOptions(dict(zip(TERMS, weights, strict=True))))
    dtype = result_type(feature)
    matrix, matrix_old = (x.to(dtype).contiguous() for x in (weight, weight_old))
    feature_gradient = empty_gradient(feature, need_feature_gradient)
    batch, channels, height, width = feature.shape
    pixels, classes = batch * height * width, len(weight)
    if pixels == 0:
        values = feature.new_zeros(len(TERMS), dtype=dtype)
        weight_gradient = torch.zeros_like(matrix) if need_weight_gradient else empty_gradient(matrix, False)
        return values.sum(), values, feature_gradient, weight_gradient
    block = 64 if dtype == torch.float32 else 32
    terms = {"POSITIVE": weights[0] != 0, "NEGATIVE": weights[1] != 0}
    shape = {
        **terms,
        "DEPTH": 32,
        "PRECISION": PRECISION if dtype == torch.float32 else "ieee",
        "REAL": tl.float32 if dtype == torch.float32 else tl.float64,
        **OPTIONS,
    }
    class_blocks, channel_blocks = -(-classes // 32), -(-channels // block)
    programs = -(-pixels // block) * class_blocks
    need_gradient = need_feature_gradient or need_weight_gradient
    sums = feature.new_empty((programs, len(TERMS)), dtype=torch.float64)
    gradients = feature.new_empty((len(TERMS), pixels, classes) if need_gradient else 0, dtype=dtype)
    with device_of(feature):
        scores_kernel[(programs,)](
            *(feature, *feature.stride(), matrix, channels),
            *(feature_old, *feature_old.stride(), matrix_old, matrix_old.shape[1]),
            *(sums, gradients, pixels, height, width, classes, class_blocks),
            *(two_floats(weights[0] / pixels) + two_floats(weights[1] / pixels)),
            GRADIENT=need_gradient,
            PIXELS=block,
            CLASSES=32,
            TERMS=8 if dtype == torch.float32 else 17,
            **shape,
        )
        values = sums.sum(dim=0) / pixels
        total = sum(factor * value for factor, value in zip(weights, values.unbind(), strict=True) if factor != 0)
        poison = total * 0  # NaN where a score is not finite: then the gradients are too
        if need_feature_gradient:
            feature_gradient_kernel[(-(-pixels // block) * channel_blocks,)](
                *(gradients, matrix, feature_gradient, *feature_gradient.stride(), poison),
                *(pixels, height, width, classes, channels, channel_blocks),
                PIXELS=block,
                CHANNELS=block,
                num_warps=8,
                **shape,
            )
        weight_gradient = empty_gradient(matrix, False)
        if need_weight_gradient:
            chunks = -(-pixels // PIXELS_OF_CHUNK)
            parts = matrix.new_empty((chunks, classes, channels))
            weight_gradient_kernel[(chunks * class_blocks * channel_blocks,)](
                *(gradients, feature, *feature.stride(), matrix, parts),
                *(pixels, height, width, classes, channels, PIXELS_OF_CHUNK, class_blocks, channel_blocks),
                CLASSES=32,
                CHANNELS=block,
                num_warps=8,
                **shape,
            )
            weight_gradient = (parts.sum(dim=0, dtype=torch.float64) + poison).to(dtype)
    return total.to(dtype), values.to(dtype), feature_gradient, weight_gradient
