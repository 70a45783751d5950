"""``ciss_fast::sigmoid_loss`` as a PyTorch operator: schema, CPU kernel, fake kernel (see `..loss_operator`)."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from ... import native
from ..loss_operator import empty_gradient, gradient_arguments, register_loss, result_type
from ..tensors import check_student_and_teacher, label_error, tensor_arguments
from .options import TERMS, SigmoidLossOptions, check_options

_SCHEMA = (
    "(Tensor student, Tensor? teacher, Tensor label, int old_classes, float[] weights, float pos_weight, "
    "int ignore_index, bool align_corners, bool check_labels, bool need_gradient) "
    "-> (Tensor total, Tensor values, Tensor gradient)"
)


def _checked(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    pos_weight: float,
    ignore_index: int,
) -> SigmoidLossOptions:
    """The operator can be called past `ciss_fast.sigmoid_loss`: what a kernel would take on trust is checked here."""
    check_student_and_teacher(student, teacher, label, old_classes, auxiliary=1)
    if len(weights) != len(TERMS):
        raise ValueError(f"weights: expected {len(TERMS)} values, got {len(weights)}")
    options = SigmoidLossOptions(
        dict(zip(TERMS, weights, strict=True)),
        pos_weight=pos_weight,
        old_classes=old_classes,
        ignore_index=ignore_index,
    )
    check_options(options, has_teacher=teacher is not None or not options.reads_teacher())
    return options


def _sigmoid_loss_cpu(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    pos_weight: float,
    ignore_index: int,
    align_corners: bool,
    check_labels: bool,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    kernel = native.function("sigmoid_loss")
    options = _checked(student, teacher, label, old_classes, weights, pos_weight, ignore_index)
    batch, channels, height, width = student.shape
    gradient = empty_gradient(student, need_gradient)
    result = kernel(
        **tensor_arguments("student", student),
        **tensor_arguments("teacher", teacher if options.reads_teacher() else None),
        **tensor_arguments("label", label),
        **gradient_arguments("gradient", gradient),
        sizes=(batch, channels, old_classes, height, width, label.shape[1], label.shape[2]),
        weights=weights,
        pos_weight=pos_weight,
        ignore_index=ignore_index,
        align_corners=align_corners,
        double_precision=student.dtype == torch.float64,
        check_labels=check_labels,
        threads=torch.get_num_threads(),
    )
    if check_labels and result["invalid_labels"]:
        raise ValueError(label_error(int(label[result["first_invalid"]]), channels, ignore_index))
    dtype = result_type(student)
    return torch.tensor(result["total"], dtype=dtype), torch.tensor(result["values"], dtype=dtype), gradient


def _sigmoid_loss_gpu(
    launches: str,
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    pos_weight: float,
    ignore_index: int,
    *flags: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The kernels that the module ``launches`` has; what that needs must not be needed by others."""
    options = _checked(student, teacher, label, old_classes, weights, pos_weight, ignore_index)
    teacher = teacher if options.reads_teacher() else None
    return importlib.import_module(launches, __package__).sigmoid_loss(
        student, teacher, label, old_classes, weights, pos_weight, ignore_index, *flags
    )


def _sigmoid_loss_fake(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    old_classes: int,
    weights: list[float],
    pos_weight: float,
    ignore_index: int,
    align_corners: bool,
    check_labels: bool,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = result_type(student)
    return (
        student.new_empty((), dtype=dtype),
        student.new_empty(len(TERMS), dtype=dtype),
        empty_gradient(student, need_gradient),
    )


register_loss(
    "sigmoid_loss",
    _SCHEMA,
    cpu=_sigmoid_loss_cpu,
    fake=_sigmoid_loss_fake,
    triton=functools.partial(_sigmoid_loss_gpu, ".triton_launch"),
    cuda=functools.partial(_sigmoid_loss_gpu, ".cuda_launch"),
)
