"""``ciss_fast::softmax_loss`` as a PyTorch operator: schema, CPU kernel, fake kernel, autograd, autocast.

The forward pass makes the gradient of the total as well, at the logits' resolution; the backward pass multiplies
it by the incoming gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import native
from ..tensors import FLOAT_TYPES, LABEL_TYPES, label_error
from .options import AVERAGES, TERMS, SoftmaxLossOptions, check_options, check_tensors

# Region bits of csrc/core/softmax_terms.h.
_UNLABELLED, _OLD, _NEW, _IGNORED = 1, 2, 4, 8
KD_REGION_BITS = {
    "unlabelled": _UNLABELLED,
    "not_unlabelled": _OLD | _NEW | _IGNORED,
    "all": _UNLABELLED | _OLD | _NEW | _IGNORED,
}
AVERAGE_CODES = {name: code for code, name in enumerate(AVERAGES)}

library = torch.library.Library("ciss_fast", "FRAGMENT")
library.define(
    "softmax_loss(Tensor student, Tensor? teacher, Tensor label, int old_classes, float[] weights, "
    "int[] averages, int kd_region, float alpha, int ignore_index, bool align_corners, bool check_labels, "
    "bool need_gradient) -> (Tensor total, Tensor values, Tensor pixels, Tensor gradient)"
)
library.define("scale_gradient(Tensor gradient, Tensor upstream, Tensor logits) -> Tensor")


def _result_type(student: Tensor) -> torch.dtype:
    return torch.float64 if student.dtype == torch.float64 else torch.float32


def _empty_gradient(student: Tensor, need_gradient: bool) -> Tensor:
    """Room for the gradient, laid out like the student (float32, or float64 for float64 logits)."""
    if not need_gradient:
        return student.new_empty(0, dtype=_result_type(student))
    return torch.empty_like(student, dtype=_result_type(student))


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
    if native.library is None:
        raise RuntimeError(f"ciss_fast::softmax_loss needs the native library: {native.unavailable_reason}")
    check_tensors(student, teacher, label, old_classes)
    _check_codes(teacher, old_classes, weights, averages, kd_region, alpha, ignore_index)
    batch, classes, height, width = student.shape
    gradient = _empty_gradient(student, need_gradient)
    result = native.library.softmax_loss(
        student=student.data_ptr(),
        student_type=FLOAT_TYPES.index(student.dtype),
        student_strides=student.stride(),
        teacher=0 if teacher is None else teacher.data_ptr(),
        teacher_type=0 if teacher is None else FLOAT_TYPES.index(teacher.dtype),
        teacher_strides=() if teacher is None else teacher.stride(),
        label=label.data_ptr(),
        label_type=LABEL_TYPES.index(label.dtype),
        label_strides=label.stride(),
        gradient=gradient.data_ptr() if need_gradient else 0,
        gradient_strides=gradient.stride() if need_gradient else (),
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
    dtype = _result_type(student)
    return (
        torch.tensor(result["total"], dtype=dtype),
        torch.tensor(result["values"], dtype=dtype),
        torch.tensor(result["pixels"], dtype=torch.int64),
        gradient,
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
    dtype = _result_type(student)
    return (
        student.new_empty((), dtype=dtype),
        student.new_empty(len(TERMS), dtype=dtype),
        student.new_empty(4, dtype=torch.int64),
        _empty_gradient(student, need_gradient),
    )


def _scale_gradient(gradient: Tensor, upstream: Tensor, logits: Tensor) -> Tensor:
    return (gradient * upstream).to(logits.dtype)


def _setup_context(ctx, inputs, output) -> None:
    student = inputs[0]
    _, values, pixels, gradient = output
    ctx.mark_non_differentiable(values, pixels, gradient)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(gradient, student)


def _backward(ctx, upstream: Tensor | None, *unused: Tensor | None):
    nothing = (None,) * 11
    if upstream is None:
        return (None, *nothing)
    gradient, student = ctx.saved_tensors
    if gradient.numel() == 0 and student.numel() > 0:
        raise RuntimeError("softmax_loss: the gradient was not asked for when the loss was computed")
    plain = type(upstream) is Tensor and type(gradient) is Tensor and not torch.is_grad_enabled()
    if plain and upstream.device.type == "cpu" and gradient.dtype == student.dtype and upstream.item() == 1:
        return (gradient, *nothing)  # what total.backward() sends: spares two passes over the gradient
    return (torch.ops.ciss_fast.scale_gradient(gradient, upstream, student), *nothing)


def _no_double_backward(ctx, upstream: Tensor):
    raise RuntimeError("softmax_loss: expected a single backward pass, got a second derivative (not supported)")


library.impl("softmax_loss", _softmax_loss_cpu, "CPU")
torch.library.register_fake("ciss_fast::softmax_loss", _softmax_loss_fake, lib=library)
torch.library.register_autograd(
    "ciss_fast::softmax_loss", _backward, setup_context=_setup_context, lib=library
)
library.impl("scale_gradient", _scale_gradient, "CompositeExplicitAutograd")
torch.library.register_fake(
    "ciss_fast::scale_gradient", lambda gradient, upstream, logits: torch.empty_like(gradient, dtype=logits.dtype),
    lib=library,
)
torch.library.register_autograd("ciss_fast::scale_gradient", _no_double_backward, lib=library)
# Under autocast the op takes every dtype as it comes and computes in float32: nothing is cast, nothing copied.
for _key in ("AutocastCPU", "AutocastCUDA"):
    library.impl("softmax_loss", torch.library.fallthrough_kernel, _key)
    library.impl("scale_gradient", torch.library.fallthrough_kernel, _key)
