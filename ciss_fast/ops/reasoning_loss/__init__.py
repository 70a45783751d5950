"""DKD's reasoning losses from features and classifiers: values and gradients in one pass over the features."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import backends, native, triton_runtime
from . import operator  # noqa: F401  (registers the operator)
from .options import TERMS, ReasoningLossOptions, check_options, check_student_and_teacher, check_types
from .reference import reasoning_loss_reference
from .scores import reasoning_scores

__all__ = ["reasoning_loss", "reasoning_scores"]

backends.register(
    "reasoning_loss",
    reference=None,
    cpu=native.reason_without("reasoning_loss"),
    triton=triton_runtime.reason_without,
)


def reasoning_loss(
    feature: Tensor,
    weight: Tensor,
    feature_old: Tensor,
    weight_old: Tensor,
    *,
    pos: float = 0.0,
    neg: float = 0.0,
    backend: str | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of DKD's distillation losses DKD+ and DKD- (Baek et al., NeurIPS 2022), from features.

    A classifier's score f . w splits into a positive reasoning score z+ = f . max(w, 0) and a negative one
    z- = f . min(w, 0). Each of the student's is distilled from the teacher's: the binary cross-entropy
    BCE(z, sigmoid(z')) at the features' resolution, averaged over all pixels of all images and summed over the
    classes. The bias takes no part. Scores are made a tile at a time: no map of them is ever kept.

    Args:
        feature: the student's features [B, D, h, w], what its classifiers read; float32, bfloat16, float16 or
            float64, any strides. Arithmetic is float32, float64 for float64 features.
        weight: [C, D], the rows of the student's 1x1 classifiers that belong to the old classes; types may be mixed.
        feature_old: the teacher's features [B, D', h, w]; get no gradient.
        weight_old: [C, D'], the teacher's classifiers of the same classes; gets no gradient.
        pos: weight of DKD+.
        neg: weight of DKD-.
        backend: "cpu" (compiled kernel), "triton" (GPUs) or "reference"; default: the kernel that runs on the
            features' device.

    Returns:
        The total (a scalar with gradient on ``feature`` and ``weight``; float32, or float64 for float64 features),
        and a dict of detached scalars: the unweighted value of every term whose weight is not 0, by name. Without a
        pixel (B, h or w = 0) values and gradients are 0. Where a score is NaN or infinite, as it is wherever a feature
        is or the part of a weight that a term reads, the total and the gradients are NaN. A weight that is exactly 0
        gets the mean of the gradients from its two sides. The gradients may share memory with the graph: a hook that
        changes one in place rules out a second backward pass through the same graph.

    Raises:
        TypeError: an argument of another kind or a dtype that is not supported.
        ValueError: shapes or devices that do not fit, no class (C = 0), weights that are not finite or all 0; the
            message names the argument, what was expected and what came.
        RuntimeError: ``backend`` names one that cannot run here (see ``python -m ciss_fast.info``).
    """
    options = ReasoningLossOptions(weights={"pos": pos, "neg": neg})
    tensors = {"feature": feature, "weight": weight, "feature_old": feature_old, "weight_old": weight_old}
    check_types(tensors, options)
    check_student_and_teacher(feature, weight, feature_old, weight_old)
    check_options(options)
    backend = backends.choose("reasoning_loss", backend, feature.device)
    if backend == "reference":
        return reasoning_loss_reference(feature, weight, feature_old, weight_old, options)
    grad = torch.is_grad_enabled()
    total, values, _, _ = torch.ops.ciss_fast.reasoning_loss(
        feature,
        weight,
        feature_old.detach(),
        weight_old.detach(),
        [options.weights[name] for name in TERMS],
        feature.requires_grad and grad,
        weight.requires_grad and grad,
        backend=backend,
    )
    active = options.active_weights()
    return total, {name: value for name, value in zip(TERMS, values.unbind(), strict=True) if name in active}
