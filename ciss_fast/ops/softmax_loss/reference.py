"""The definition of the softmax-family losses, in plain PyTorch, written to be read.

Every other implementation is compared with this one. It enlarges the logits to the label's size and works on
the full-resolution tensors, as the papers' code does, so it is slow; gradients come from autograd.

Sources: MiB (Cermelli et al., CVPR 2020, eq. 5-9), ALIFE (Oh, Baek, Ham, NeurIPS 2022, eq. 2-8). README.md in
this folder has the formulas and gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..tensors import enlarge, poison
from .options import SoftmaxLossOptions


@dataclass(frozen=True)
class Regions:
    """Boolean maps [B, H, W] of what the labels say at a step; together they cover every pixel once."""

    unlabelled: Tensor  # U: label 0 at a later step; nothing is known but that it is no new class
    old: Tensor  # O: labelled with an old class (sequential setting only)
    new: Tensor  # N: labelled with a class of this step (at the base step: with any class)
    ignored: Tensor  # I

    @classmethod
    def of(cls, label: Tensor, old_classes: int, ignore_index: int) -> Regions:
        ignored = label == ignore_index
        if old_classes == 0:  # base step, fine-tuning, joint: class 0 is a class like the others
            nothing = torch.zeros_like(ignored)
            return cls(nothing, nothing, ~ignored, ignored)
        unlabelled = (label == 0) & ~ignored
        new = (label >= old_classes) & ~ignored
        return cls(unlabelled, ~(unlabelled | new | ignored), new, ignored)


def softmax_loss_reference(
    student: Tensor, teacher: Tensor | None, label: Tensor, options: SoftmaxLossOptions
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Weighted sum of the terms, the terms one by one, and the number of pixels of each region.

    Args:
        student: logits [B, C, h, w]; channels in the order the classes were learnt.
        teacher: logits [B, C_old, h, w] of the previous step's model, or None.
        label: channel ids [B, H, W], 0 = unlabelled (background when ``options.old_classes`` is 0).
        options: weights, averaging and regions.
    """
    size = (label.shape[-2], label.shape[-1])
    label = label.long()
    regions = Regions.of(label, options.old_classes, options.ignore_index)
    z = enlarge(student, size, options.align_corners)
    log_p = z.log_softmax(dim=1)
    if teacher is not None:
        z_teacher = enlarge(teacher.detach(), size, options.align_corners).to(z.dtype)
        p_teacher = (options.alpha * z_teacher).softmax(dim=1)
        pseudo_label = z_teacher.argmax(dim=1) if z_teacher.shape[1] else torch.zeros_like(label)
    else:
        p_teacher, pseudo_label = None, torch.zeros_like(label)

    # Ignored pixels need a channel too where one is looked up; their regions leave them out.
    channel = label.masked_fill(regions.ignored, 0)
    old = options.old_classes
    everywhere = torch.ones_like(regions.ignored)
    kd_region = {
        "not_unlabelled": ~regions.unlabelled,
        "all": everywhere,
        "unlabelled": regions.unlabelled,
    }[options.kd_region]
    definitions = {  # term: (its value at every pixel, the pixels it applies to)
        "ce": lambda: (cross_entropy(log_p, channel), regions.old | regions.new),
        "cce": lambda: (
            torch.where(regions.new, cross_entropy(log_p, channel), any_old_class(z, old)),
            ~regions.ignored,
        ),
        "kd": lambda: (distillation(z, p_teacher, old), kd_region),
        "ckd": lambda: (unbiased_distillation(log_p, p_teacher, old), everywhere),
        "ali": lambda: (adaptive_logit_regularisation(z, p_teacher, old), regions.unlabelled),
        "focal": lambda: (
            focal(log_p, torch.where(regions.unlabelled, pseudo_label, channel)),
            ~regions.ignored,
        ),
    }
    total = z.new_zeros(())
    terms: dict[str, Tensor] = {}
    for name, weight in options.active_weights().items():
        values, region = definitions[name]()
        divisor = {
            "all": everywhere,
            "valid": ~regions.ignored,
            "region": region,
        }[options.average[name]].sum()
        # An empty region gives loss 0 and gradient 0 (the papers' code gives NaN).
        terms[name] = torch.where(region, values, torch.zeros_like(values)).sum() / divisor.clamp(min=1)
        total = total + weight * terms[name]
    used = [student]
    if teacher is not None and options.reads_teacher():
        used.append(teacher.detach())
    total = total + poison(*used).to(total.dtype)
    pixels = {
        "unlabelled": regions.unlabelled.sum(),
        "old": regions.old.sum(),
        "new": regions.new.sum(),
        "ignored": regions.ignored.sum(),
    }
    return total, {name: value.detach() for name, value in terms.items()}, pixels


def cross_entropy(log_p: Tensor, channel: Tensor) -> Tensor:
    """CE at every pixel: -log p_y."""
    return -log_p.gather(1, channel.unsqueeze(1)).squeeze(1)


def any_old_class(z: Tensor, old_classes: int) -> Tensor:
    """CCE on unlabelled pixels: -log of the probability that the pixel is any old class (MiB, eq. 5-6)."""
    return z.logsumexp(dim=1) - z[:, :old_classes].logsumexp(dim=1)


def distillation(z: Tensor, p_teacher: Tensor, old_classes: int) -> Tensor:
    """KD: cross-entropy of the teacher with the softmax over the old classes only, over their number."""
    log_q = z[:, :old_classes].log_softmax(dim=1)
    return -(p_teacher * log_q).sum(dim=1) / old_classes


def unbiased_distillation(log_p: Tensor, p_teacher: Tensor, old_classes: int) -> Tensor:
    """CKD: KD where the background stands for itself and all new classes (MiB, eq. 8-9)."""
    background_or_new = torch.cat([log_p[:, :1], log_p[:, old_classes:]], dim=1).logsumexp(dim=1)
    rest = (p_teacher[:, 1:] * log_p[:, 1:old_classes]).sum(dim=1)
    return -(p_teacher[:, 0] * background_or_new + rest) / old_classes


def adaptive_logit_regularisation(z: Tensor, p_teacher: Tensor, old_classes: int) -> Tensor:
    """ALI: log sum_k exp(z_k) - sum over old k of p'_k z_k (ALIFE, eq. 6)."""
    return z.logsumexp(dim=1) - (p_teacher * z[:, :old_classes]).sum(dim=1)


def focal(log_p: Tensor, target: Tensor) -> Tensor:
    """Focal loss with gamma = 2 (ALIFE, stage 3): (1 - p_t)^2 (-log p_t)."""
    log_p_target = -cross_entropy(log_p, target)
    return -((1 - log_p_target.exp()) ** 2) * log_p_target
