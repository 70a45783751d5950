"""The definition of the sigmoid-family losses, in plain PyTorch, written to be read.

Every other implementation is compared with this one. It enlarges the logits to the label's size and works on
the full-resolution tensors, as the paper's code does, so it is slow; gradients come from autograd.

Source: DKD (Baek et al., NeurIPS 2022) and its public code. README.md in this folder has formulas and gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..loss_operator import result_type
from ..tensors import enlarge, poison
from .options import SigmoidLossOptions


def sigmoid_loss_reference(
    student: Tensor, teacher: Tensor | None, label: Tensor, options: SigmoidLossOptions
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the terms, and the terms one by one.

    Args:
        student: logits [B, 1 + old + new, h, w]: the auxiliary channel, old classes, new classes.
        teacher: logits [B, 1 + old, h, w] of the previous step's model, or None; channel 0 is not read.
        label: class ids [B, H, W].
        options: weights and the rest.
    """
    size = (label.shape[-2], label.shape[-1])
    first_new = 1 + options.old_classes

    def enlarged(logits: Tensor) -> Tensor:
        return enlarge(logits, size, options.align_corners)

    def mbce() -> Tensor:
        z = enlarged(student[:, first_new:])
        classes = torch.arange(first_new, student.shape[1], device=label.device)
        # Ignored pixels are negatives for every class, as unlabelled ones are.
        positive = (label[:, None] == classes[:, None, None]) & (label[:, None] != options.ignore_index)
        positive = positive.to(z.dtype)
        return binary_cross_entropy(z, options.pos_weight * positive, 1 - positive)

    def kd() -> Tensor:
        z = enlarged(student[:, 1:first_new])
        z_teacher = enlarged(teacher.detach()[:, 1:]).to(z.dtype)
        # Not 1 - sigmoid: where the teacher is sure, that difference has no digits left.
        return binary_cross_entropy(z, z_teacher.sigmoid(), (-z_teacher).sigmoid())

    def ac() -> Tensor:
        z = enlarged(student[:, :1])
        return binary_cross_entropy(z, torch.zeros_like(z), torch.ones_like(z))

    used = [student]
    if options.reads_teacher():
        used.append(teacher.detach()[:, 1:])
    total = poison(*used).to(result_type(student))
    definitions = {"mbce": mbce, "kd": kd, "ac": ac}
    terms: dict[str, Tensor] = {}
    for name, weight in options.active_weights().items():
        # The mean over all pixels of all images, summed over the classes; without a pixel or a class 0.
        terms[name] = definitions[name]().sum() / max(label.numel(), 1)
        total = total + weight * terms[name]
    return total, {name: value.detach() for name, value in terms.items()}


def binary_cross_entropy(z: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-(positive log sigmoid(z) + negative log sigmoid(-z)), the two weights at every pixel being free."""
    return -(positive * F.logsigmoid(z) + negative * F.logsigmoid(-z))
