"""The definition of DKD's reasoning losses, in plain PyTorch, written to be read.

Every other implementation is compared with this one; gradients come from autograd.

Source: DKD (Baek et al., NeurIPS 2022), decomposed knowledge distillation. README.md in this folder has formulas and
gradients.
"""

from __future__ import annotations

from torch import Tensor

from ..loss_operator import result_type
from ..sigmoid_loss.reference import binary_cross_entropy
from ..tensors import poison
from .options import ReasoningLossOptions
from .scores import reasoning_scores


def reasoning_loss_reference(
    feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor, options: ReasoningLossOptions
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the terms, and the terms one by one.

    Args:
        feature, weight: the student's, [B, D, h, w] and [C, D].
        feature_old, weight_old: the teacher's, [B, D', h, w] and [C, D'].
        options: the terms' weights.
    """
    dtype = result_type(feature)
    student = reasoning_scores(feature, weight)
    teacher = reasoning_scores(feature_old.detach().to(dtype), weight_old.detach())
    scores = {"pos": (student[0], teacher[0]), "neg": (student[1], teacher[1])}
    pixels = feature.shape[0] * feature.shape[2] * feature.shape[3]
    total = feature.new_zeros((), dtype=dtype)
    terms: dict[str, Tensor] = {}
    for name, factor in options.active_weights().items():
        z, z_old = scores[name]
        # Not 1 - sigmoid: where the teacher is sure, that difference has no digits left.
        values = binary_cross_entropy(z, z_old.sigmoid(), (-z_old).sigmoid())
        # The mean over all pixels of all images, summed over the classes; without a pixel 0.
        terms[name] = values.sum() / max(pixels, 1)
        total = total + factor * terms[name] + poison(z, z_old)
    return total, {name: value.detach() for name, value in terms.items()}
