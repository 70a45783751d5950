"""``ciss_fast::reasoning_loss`` as a PyTorch operator: schema, kernels, fake kernel (see `..loss_operator`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import native
from ..loss_operator import empty_gradient, gradient_arguments, register_loss, result_type
from ..tensors import tensor_arguments
from .options import TERMS, ReasoningLossOptions, check_options, check_student_and_teacher

_SCHEMA = (
    "(Tensor feature, Tensor weight, Tensor feature_old, Tensor weight_old, float[] weights, "
    "bool need_feature_gradient, bool need_weight_gradient) "
    "-> (Tensor total, Tensor values, Tensor feature_gradient, Tensor weight_gradient)"
)


def _reasoning_loss_cpu(
    feature: Tensor,
    weight: Tensor,
    feature_old: Tensor,
    weight_old: Tensor,
    weights: list[float],
    need_feature_gradient: bool,
    need_weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernel = native.function("reasoning_loss")
    # The operator can be called past `ciss_fast.reasoning_loss`: what the kernel would take on trust is checked here.
    check_student_and_teacher(feature, weight, feature_old, weight_old)
    if len(weights) != len(TERMS):
        raise ValueError(f"weights: expected {len(TERMS)} values, got {len(weights)}")
    check_options(ReasoningLossOptions(dict(zip(TERMS, weights, strict=True))))
    dtype = result_type(feature)
    batch, channels, height, width = feature.shape
    matrix, matrix_old = (x.to(dtype).contiguous() for x in (weight, weight_old))
    feature_gradient = empty_gradient(feature, need_feature_gradient)
    weight_gradient = empty_gradient(matrix, need_weight_gradient)
    result = kernel(
        **tensor_arguments("feature", feature),
        **tensor_arguments("feature_old", feature_old),
        weight=matrix.data_ptr(),
        weight_old=matrix_old.data_ptr(),
        **gradient_arguments("gradient", feature_gradient),
        weight_gradient=weight_gradient.data_ptr() if need_weight_gradient else 0,
        sizes=(batch, height, width, len(weight), channels, feature_old.shape[1]),
        weights=weights,
        double_precision=dtype == torch.float64,
        threads=torch.get_num_threads(),
    )
    total, values = (torch.tensor(result[name], dtype=dtype) for name in ("total", "values"))
    return total, values, feature_gradient, weight_gradient


def _reasoning_loss_triton(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from .triton_launch import reasoning_loss_triton  # triton need not be installed

    return reasoning_loss_triton(*arguments)


def _reasoning_loss_fake(
    feature: Tensor,
    weight: Tensor,
    feature_old: Tensor,
    weight_old: Tensor,
    weights: list[float],
    need_feature_gradient: bool,
    need_weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = result_type(feature)
    weight_shape = weight.shape if need_weight_gradient else (0,)
    return (
        feature.new_empty((), dtype=dtype),
        feature.new_empty(len(TERMS), dtype=dtype),
        empty_gradient(feature, need_feature_gradient),
        weight.new_empty(weight_shape, dtype=dtype),
    )


register_loss(
    "reasoning_loss",
    _SCHEMA,
    cpu=_reasoning_loss_cpu,
    fake=_reasoning_loss_fake,
    differentiable=(0, 1),
    triton=_reasoning_loss_triton,
)
