"""``ciss_fast::softmax_loss`` as a PyTorch operator: schema, CPU kernel, fake kernel (see `..loss_operator`)."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from ... import native
from ..loss_operator import empty_gradient, gradient_arguments, register_loss, result_type
from ..tensors import check_student_and_teacher, label_error, tensor_arguments
from .options import AVERAGES, TERMS, SoftmaxLossOptions, check_options

# Region bits of csrc/core/softmax_terms.h.
_UNLABELLED, _OLD, _NEW, _IGNORED = 1, 2, 4, 8
KD_REGION_BITS = {
    "unlabelled": _UNLABELLED,
    "not_unlabelled": _OLD | _NEW | _IGNORED,
    "all": _UNLABELLED | _OLD | _NEW | _IGNORED,
}
AVERAGE_CODES = {name: code for code, name in enumerate(AVERAGES)}

_SCHEMA = (
    "(Tensor student, Tensor? teacher, Tensor label, int old_classes, float[] weights, "
    "int[] averages, int kd_region, float alpha, int ignore_index, bool align_corners, bool check_labels, "
    "bool need_gradient) -> (Tensor total, Tensor values, Tensor pixels, Tensor gradient)"
)


def _check_codes(
    teacher: Tensor | None,
    old_classes: int,
    weights: list[float],
    averages: list[int],
    kd_region: int,
    alpha: float,
    ignore_index: int,
) -> None:
    """The operator can be called past `ciss_fast.softmax_loss`: what the kernel would take on trust is checked here."""
    if len(weights) != len(TERMS) or len(averages) != len(TERMS):
        raise ValueError(
            f"weights, averages: expected {len(TERMS)} values each, got {len(weights)} and {len(averages)}"
        )
    if not all(code in AVERAGE_CODES.values() for code in averages):
        raise ValueError(f"averages: expected codes 0 to {len(AVERAGES) - 1}, got {averages}")
    regions = {bits: name for name, bits in KD_REGION_BITS.items()}
    if kd_region not in regions:
        raise ValueError(f"kd_region: expected one of {', '.join(map(str, regions))}, got {kd_region}")
    options = SoftmaxLossOptions(
        weights=dict(zip(TERMS, weights, strict=True)),
        old_classes=old_classes,
        alpha=alpha,
        ignore_index=ignore_index,
        kd_region=regions[kd_region],
    )
    check_options(options, teacher is not None)


def _softmax_loss_cpu(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    averages: list[int],
    kd_region: int,
    alpha: float,
    ignore_index: int,
    align_corners: bool,
    check_labels: bool,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernel = native.function("softmax_loss")
    check_student_and_teacher(student, teacher, label, old_classes)
    _check_codes(teacher, old_classes, weights, averages, kd_region, alpha, ignore_index)
    batch, classes, height, width = student.shape
    gradient = empty_gradient(student, need_gradient)
    result = kernel(
        **tensor_arguments("student", student),
        **tensor_arguments("teacher", teacher),
        **tensor_arguments("label", label),
        **gradient_arguments("gradient", gradient),
        sizes=(batch, classes, old_classes, height, width, label.shape[1], label.shape[2]),
        weights=weights,
        averages=averages,
        kd_region=kd_region,
        alpha=alpha,
        ignore_index=ignore_index,
        align_corners=align_corners,
        double_precision=student.dtype == torch.float64,
        check_labels=check_labels,
        threads=torch.get_num_threads(),
    )
    if result["invalid_labels"]:
        value = int(label[result["first_invalid"]])
        raise ValueError(label_error(value, classes, ignore_index))
    dtype = result_type(student)
    return (
        torch.tensor(result["total"], dtype=dtype),
        torch.tensor(result["values"], dtype=dtype),
        torch.tensor(result["pixels"], dtype=torch.int64),
        gradient,
    )


def _softmax_loss_gpu(
    launches: str,
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    averages: list[int],
    kd_region: int,
    alpha: float,
    ignore_index: int,
    *flags: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The kernels that the module ``launches`` has; what that needs must not be needed by others."""
    check_student_and_teacher(student, teacher, label, old_classes)
    _check_codes(teacher, old_classes, weights, averages, kd_region, alpha, ignore_index)
    return importlib.import_module(launches, __package__).softmax_loss(
        student, teacher, label, old_classes, weights, averages, kd_region, alpha, ignore_index, *flags
    )


def _softmax_loss_fake(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    averages: list[int],
    kd_region: int,
    alpha: float,
    ignore_index: int,
    align_corners: bool,
    check_labels: bool,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = result_type(student)
    return (
        student.new_empty((), dtype=dtype),
        student.new_empty(len(TERMS), dtype=dtype),
        student.new_empty(4, dtype=torch.int64),
        empty_gradient(student, need_gradient),
    )


register_loss(
    "softmax_loss",
    _SCHEMA,
    cpu=_softmax_loss_cpu,
    fake=_softmax_loss_fake,
    triton=functools.partial(_softmax_loss_gpu, ".triton_launch"),
    cuda=functools.partial(_softmax_loss_gpu, ".cuda_launch"),
)
