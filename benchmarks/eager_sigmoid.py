"""The sigmoid-family losses as one writes them in plain PyTorch: what the op is compared with.

Three vectorised formulations, all without a Python loop over classes, and the loop over classes that the paper's code
has. Each group of classes is enlarged for itself: slices of one enlarged tensor would cost a padded gradient each.
Arguments as in `ciss_fast.sigmoid_loss`; the functions return the total.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .logits_loss import enlarge


def positives(label: Tensor, first: int, channels: int) -> Tensor:
    """[B, new, H, W]: whether a pixel is labelled with the class; 0, 255 and old classes are no class's."""
    return label[:, None] == torch.arange(first, channels, device=label.device)[:, None, None]


@dataclass(frozen=True)
class Weights:
    """Weights of the terms and of mBCE's positives."""

    kd: float = 5.0
    ac: float = 1.0
    pos_weight: float = 1.0


def _distillation(z: Tensor, target: Tensor) -> Tensor:
    """Sum of BCE(z, target): two sums, so that the gradient of each is a single pass."""
    return F.softplus(z).sum() - (target * z).sum()


def softplus_form(weights: Weights) -> Callable[[Tensor, Tensor | None, Tensor, bool], Tensor]:
    """log(1 + e^z) everywhere, less what is linear in z: where labels are and where the teacher's sigmoids are."""

    def loss(student: Tensor, teacher: Tensor | None, label: Tensor, align_corners: bool) -> Tensor:
        old = 1 if teacher is None else teacher.shape[1]
        channels = student.shape[1]
        z = enlarge(student[:, old:], label, align_corners)
        labelled = (label >= old) & (label < channels)
        index = (label - old).masked_fill(~labelled, 0).unsqueeze(1)
        z_label = z.gather(1, index).squeeze(1)
        # w (softplus(z) - z) in place of softplus(z) at the labelled pixels
        at_label = weights.pos_weight * F.softplus(-z_label) - F.softplus(z_label)
        total = F.softplus(z).sum() + (at_label * labelled).sum()
        total = total + weights.ac * F.softplus(enlarge(student[:, :1], label, align_corners)).sum()
        if teacher is not None:
            z_old = enlarge(student[:, 1:old], label, align_corners)
            target = enlarge(teacher[:, 1:], label, align_corners).sigmoid()
            total = total + weights.kd * _distillation(z_old, target)
        return total / label.numel()

    return loss


def group_by_group(weights: Weights) -> Callable[[Tensor, Tensor | None, Tensor, bool], Tensor]:
    """One fused BCE for each group of classes: new, old, auxiliary."""

    def loss(student: Tensor, teacher: Tensor | None, label: Tensor, align_corners: bool) -> Tensor:
        old = 1 if teacher is None else teacher.shape[1]
        z = enlarge(student[:, old:], label, align_corners)
        weight = torch.tensor(weights.pos_weight, device=z.device)
        target = positives(label, old, student.shape[1]).to(z.dtype)
        bce = F.binary_cross_entropy_with_logits
        total = bce(z, target, pos_weight=weight if weights.pos_weight != 1 else None, reduction="sum")
        auxiliary = enlarge(student[:, :1], label, align_corners)
        total = total + weights.ac * bce(auxiliary, torch.zeros_like(auxiliary), reduction="sum")
        if teacher is not None:
            z_old = enlarge(student[:, 1:old], label, align_corners)
            target = enlarge(teacher[:, 1:], label, align_corners).sigmoid()
            total = total + weights.kd * bce(z_old, target, reduction="sum")
        return total / label.numel()

    return loss


def one_call(weights: Weights) -> Callable[[Tensor, Tensor | None, Tensor, bool], Tensor]:
    """All targets in one tensor, one fused BCE with a weight for every channel."""

    def loss(student: Tensor, teacher: Tensor | None, label: Tensor, align_corners: bool) -> Tensor:
        old = 1 if teacher is None else teacher.shape[1]
        z = enlarge(student, label, align_corners)
        targets = [torch.zeros_like(z[:, :1])]
        if teacher is not None:
            targets.append(enlarge(teacher[:, 1:], label, align_corners).sigmoid())
        targets.append(positives(label, old, student.shape[1]).to(z.dtype))
        of_channel, positive = torch.ones(student.shape[1], 1, 1, device=z.device), None
        of_channel[0], of_channel[1:old] = weights.ac, weights.kd
        if weights.pos_weight != 1:
            positive = torch.ones_like(of_channel)
            positive[old:] = weights.pos_weight
        total = F.binary_cross_entropy_with_logits(
            z, torch.cat(targets, dim=1), weight=of_channel, pos_weight=positive, reduction="sum"
        )
        return total / label.numel()

    return loss


def class_by_class(weights: Weights) -> Callable[[Tensor, Tensor | None, Tensor, bool], Tensor]:
    """A loop over the classes, each with a BCE of its own, as the paper's code has it."""

    def loss(student: Tensor, teacher: Tensor | None, label: Tensor, align_corners: bool) -> Tensor:
        old = 1 if teacher is None else teacher.shape[1]
        bce = F.binary_cross_entropy_with_logits
        weight = torch.tensor(weights.pos_weight, device=student.device)
        z = enlarge(student, label, align_corners)
        total = weights.ac * bce(z[:, 0], torch.zeros_like(z[:, 0]))
        for c in range(old, student.shape[1]):
            total = total + bce(z[:, c], (label == c).to(z.dtype), pos_weight=weight)
        if teacher is not None:
            target = enlarge(teacher, label, align_corners).sigmoid()
            for c in range(1, old):
                total = total + weights.kd * bce(z[:, c], target[:, c])
        return total

    return loss


def kd_alone(student: Tensor, teacher: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """KD; new classes and the auxiliary channel need not be enlarged for it."""
    z = enlarge(student[:, 1 : teacher.shape[1]], label, align_corners)
    target = enlarge(teacher[:, 1:], label, align_corners).sigmoid()
    return _distillation(z, target) / label.numel()
