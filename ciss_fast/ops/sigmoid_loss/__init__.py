"""The sigmoid-family losses (DKD) on network-resolution logits, all terms and the gradient in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import backends, cuda_runtime, native, triton_runtime
from ..tensors import check_label_values, check_student_and_teacher
from . import operator  # noqa: F401  (registers the operator)
from .options import TERMS, SigmoidLossOptions, check_options, check_types
from .reference import sigmoid_loss_reference

__all__ = ["sigmoid_loss"]

backends.register(
    "sigmoid_loss",
    reference=None,
    cpu=native.reason_without("sigmoid_loss"),
    triton=triton_runtime.reason_without,
    cuda=cuda_runtime.reason_without,
)


def sigmoid_loss(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    *,
    mbce: float = 0.0,
    kd: float = 0.0,
    ac: float = 0.0,
    pos_weight: float = 1.0,
    old_classes: int | None = None,
    align_corners: bool = False,
    ignore_index: int = 255,
    check_labels: bool = True,
    backend: str | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of sigmoid-family losses of logits enlarged bilinearly to the label's size (DKD, NeurIPS 2022).

    There is no background class: class id c is channel c, and channel 0 belongs to DKD's auxiliary classifier. The
    enlarged logits are never built: the kernels interpolate on the fly and return the gradient at the logits' own
    resolution. Any ratio of the sizes works, shrinking included. Every term is averaged over all pixels of all
    images and summed over its classes.

    Args:
        student: logits [B, C, h, w], C = 1 + old + new classes in learning order; float32, bfloat16, float16 or
            float64, any strides. Arithmetic is float32 (float64 for float64).
        teacher: logits [B, 1 + old_classes, h, w] of the previous step's model, or None (base step); its channel 0
            is not read; gets no gradient.
        label: class ids [B, H, W], uint8, int32 or int64: 0 ... C - 1, or ``ignore_index``.
        mbce: weight of the binary cross-entropy of every new class. Only pixels that are labelled with the class are
            its positives: 0, ``ignore_index`` and old classes' labels are negatives. Without a new class it is 0.
        kd: weight of distillation, the binary cross-entropy of every old class against the teacher's sigmoid.
        ac: weight of the auxiliary classifier's binary cross-entropy, all pixels being negatives.
        pos_weight: factor on the positives of ``mbce``, > 0.
        old_classes: number of classes learnt before this step; default: the teacher's channels less one, or 0.
        align_corners: as in ``torch.nn.functional.interpolate``.
        ignore_index: label of pixels that are negatives for every class, whatever its value.
        check_labels: raise for labels that are neither 0 ... C - 1 nor ``ignore_index``; if False, and always on a
            GPU, whose kernels nothing waits for, they are negatives for every class.
        backend: "cpu" (compiled kernel), "triton", "cuda" or "reference"; default: see `ciss_fast.backends`. On a GPU
            double precision is the reference's alone.

    Returns:
        The total (a scalar with gradient on ``student``; float32, or float64 for float64 logits), and a dict of
        detached scalars: the unweighted value of every term whose weight is not 0, by name. The gradient is 0 on
        channels that no such term reads. A NaN or an infinity anywhere in the student's logits, or in the teacher's
        where ``kd`` reads them, gives a NaN total. The gradient may share memory with the graph: a hook that changes
        it in place rules out a second backward pass through the same graph.

    Raises:
        TypeError: an argument of another kind or a dtype that is not supported.
        ValueError: shapes, devices, options or label values that do not fit; the message names the argument,
            what was expected and what came.
        RuntimeError: ``backend`` names one that cannot run here (see ``python -m ciss_fast.info``).
    """
    if old_classes is None:
        old_classes = max(teacher.shape[1] - 1, 0) if isinstance(teacher, Tensor) and teacher.dim() == 4 else 0
    options = SigmoidLossOptions(
        weights={"mbce": mbce, "kd": kd, "ac": ac},
        pos_weight=pos_weight,
        old_classes=old_classes,
        align_corners=align_corners,
        ignore_index=ignore_index,
        check_labels=check_labels,
    )
    check_types(student, teacher, label, options)
    check_student_and_teacher(student, teacher, label, old_classes, auxiliary=1)
    check_options(options, teacher is not None)
    gpu_kernel = student.dtype != torch.float64
    backend = backends.choose("sigmoid_loss", backend, student.device, gpu_kernel=gpu_kernel)
    if backend == "reference":
        if check_labels:
            check_label_values(label, student.shape[1], ignore_index)
        return sigmoid_loss_reference(student, teacher, label, options)
    total, values, _ = torch.ops.ciss_fast.sigmoid_loss(
        student,
        teacher.detach() if teacher is not None and options.reads_teacher() else None,
        label,
        options.old_classes,
        [options.weights[name] for name in TERMS],
        options.pos_weight,
        options.ignore_index,
        options.align_corners,
        options.check_labels,
        student.requires_grad and torch.is_grad_enabled(),
        backend=backend,
    )
    active = options.active_weights()
    return total, {name: value for name, value in zip(TERMS, values.unbind(), strict=True) if name in active}
