"""The softmax-family losses (MiB, ALIFE) on network-resolution logits, all terms and the gradient in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import backends, cuda_runtime, native, triton_runtime
from ..tensors import check_label_values, check_student_and_teacher
from .operator import AVERAGE_CODES, KD_REGION_BITS
from .options import TERMS, SoftmaxLossOptions, check_options, check_types
from .reference import softmax_loss_reference

__all__ = ["softmax_loss"]

backends.register(
    "softmax_loss",
    reference=None,
    cpu=native.reason_without("softmax_loss"),
    triton=triton_runtime.reason_without,
    cuda=cuda_runtime.reason_without,
)

PIXEL_COUNTS = ("unlabelled", "old", "new", "ignored")


def softmax_loss(
    student: Tensor,
    teacher: Tensor | None,
    label: Tensor,
    *,
    ce: float = 0.0,
    cce: float = 0.0,
    kd: float = 0.0,
    ckd: float = 0.0,
    ali: float = 0.0,
    focal: float = 0.0,
    old_classes: int | None = None,
    align_corners: bool = False,
    alpha: float = 1.0,
    ignore_index: int = 255,
    ce_average: str = "all",
    cce_average: str = "valid",
    kd_average: str = "region",
    ckd_average: str = "all",
    ali_average: str = "region",
    focal_average: str = "all",
    kd_region: str = "not_unlabelled",
    check_labels: bool = True,
    backend: str | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of softmax-family losses of logits enlarged bilinearly to the label's size.

    The enlarged logits are never built: the kernels interpolate on the fly and return the gradient at the
    logits' own resolution. Any ratio of the sizes works, shrinking included. A pixel is *unlabelled* (label 0),
    *old* (1 ... old_classes - 1, sequential setting only), *new* (old_classes ...) or *ignored*; when
    ``old_classes`` is 0 (base step, fine-tuning, joint training) class 0 is a class like the others and every
    pixel that is not ignored counts as new.

    Args:
        student: logits [B, C, h, w], channels in learning order; float32, bfloat16, float16 or float64, any
            strides. Arithmetic is float32 (float64 for float64).
        teacher: logits [B, old_classes, h, w] of the previous step's model, or None; gets no gradient.
        label: channel ids [B, H, W], uint8, int32 or int64.
        ce: weight of cross-entropy on labelled pixels.
        cce: weight of MiB's unbiased cross-entropy (eq. 5-6): CE on new pixels, -log of the probability of all
            old classes on unlabelled and old ones.
        kd: weight of distillation over the old classes, divided by their number, on ``kd_region``.
        ckd: weight of MiB's unbiased distillation (eq. 8-9) on all pixels, divided by ``old_classes``.
        ali: weight of ALIFE's adaptive logit regularisation (eq. 6) on unlabelled pixels.
        focal: weight of the focal loss (gamma = 2) of ALIFE's stage 3; unlabelled pixels take the teacher's
            argmax as pseudo-label.
        old_classes: number of channels learnt before this step; default: the teacher's channels, or 0.
        align_corners: as in ``torch.nn.functional.interpolate``.
        alpha: factor on the teacher's logits before its softmax (MiB), > 0.
        ignore_index: label of pixels that belong to no region but "ignored".
        ce_average, cce_average, kd_average, ckd_average, ali_average, focal_average: what each term's sum is
            divided by: "all" pixels, "valid" ones (not ignored), or those of the "region" the term applies to.
            Defaults are those of the papers' code. An empty divisor gives loss 0 and gradient 0.
        kd_region: "not_unlabelled" (ALIFE; ignored pixels included), "all" (MiB) or "unlabelled".
        check_labels: raise for labels that are neither a class nor ``ignore_index``; if False, and always on a GPU,
            whose kernels nothing waits for, they count as ignored (in the reference: are undefined).
        backend: "cpu" (compiled kernel), "triton", "cuda" or "reference"; default: see `ciss_fast.backends`. On a GPU
            double precision is the reference's alone.

    Returns:
        The total (a scalar with gradient on ``student``; float32, or float64 for float64 logits), and a dict of
        detached scalars: the unweighted value of every term whose weight is not 0, by name, and the number of
        pixels of each region as ``pixels_unlabelled``, ``pixels_old``, ``pixels_new``, ``pixels_ignored``.
        A NaN or an infinity anywhere in the student's logits, or in the teacher's where a term reads them, gives a
        NaN total. The gradient may share memory with the graph:
        a hook that changes it in place rules out a second backward pass through the same graph.

    Raises:
        TypeError: an argument of another kind or a dtype that is not supported.
        ValueError: shapes, devices, options or label values that do not fit; the message names the argument,
            what was expected and what came.
        RuntimeError: ``backend`` names one that cannot run here (see ``python -m ciss_fast.info``).
    """
    if old_classes is None:
        old_classes = teacher.shape[1] if isinstance(teacher, Tensor) and teacher.dim() == 4 else 0
    options = SoftmaxLossOptions(
        weights={"ce": ce, "cce": cce, "kd": kd, "ckd": ckd, "ali": ali, "focal": focal},
        old_classes=old_classes,
        align_corners=align_corners,
        alpha=alpha,
        ignore_index=ignore_index,
        average={
            "ce": ce_average,
            "cce": cce_average,
            "kd": kd_average,
            "ckd": ckd_average,
            "ali": ali_average,
            "focal": focal_average,
        },
        kd_region=kd_region,
        check_labels=check_labels,
    )
    check_types(student, teacher, label, options)
    check_student_and_teacher(student, teacher, label, old_classes)
    check_options(options, teacher is not None)
    gpu_kernel = student.dtype != torch.float64
    backend = backends.choose("softmax_loss", backend, student.device, gpu_kernel=gpu_kernel)
    if backend == "reference":
        if check_labels:
            check_label_values(label, student.shape[1], ignore_index)
        total, terms, pixels = softmax_loss_reference(student, teacher, label, options)
    else:
        total, terms, pixels = _kernel(student, teacher, label, options, backend)
    return total, terms | {f"pixels_{name}": pixels[name] for name in PIXEL_COUNTS}


def _kernel(
    student: Tensor, teacher: Tensor | None, label: Tensor, options: SoftmaxLossOptions, backend: str
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    active = options.active_weights()
    total, values, counts, _ = torch.ops.ciss_fast.softmax_loss(
        student,
        teacher.detach() if teacher is not None and options.reads_teacher() else None,
        label,
        options.old_classes,
        [options.weights[name] for name in TERMS],
        [AVERAGE_CODES[options.average[name]] for name in TERMS],
        KD_REGION_BITS[options.kd_region],
        options.alpha,
        options.ignore_index,
        options.align_corners,
        options.check_labels,
        student.requires_grad and torch.is_grad_enabled(),
        backend=backend,
    )
    terms = {name: value for name, value in zip(TERMS, values.unbind(), strict=True) if name in active}
    return total, terms, dict(zip(PIXEL_COUNTS, counts.unbind(), strict=True))
