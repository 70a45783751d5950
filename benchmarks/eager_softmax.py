"""The softmax-family losses as one writes them in plain PyTorch: what the op is compared with.

Written to be fast: what several terms need is computed once, log-probabilities come from torch's fused
log-softmax, ALI uses that the teacher's probabilities add up to 1 (log sum_k e^{z_k} - sum_k p'_k z_k =
-sum_k p'_k log p_k), masks are applied to maps without a class dimension. Old classes do not occur as labels
(overlapped and disjoint settings). Arguments as in `ciss_fast.softmax_loss`; returns the total.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .logits_loss import IGNORED, enlarge


def mean_over(values: Tensor, region: Tensor) -> Tensor:
    """Mean of ``values`` over ``region``, both [B, H, W]."""
    return (values * region).sum() / region.sum().clamp(min=1)


def label_cross_entropy(log_p: Tensor, label: Tensor) -> Tensor:
    """CE of the labelled pixels over all pixels; 0 and 255 have no label."""
    labelled = label.masked_fill(label == 0, IGNORED)
    return F.nll_loss(log_p, labelled, ignore_index=IGNORED, reduction="sum") / label.numel()


def alife(student: Tensor, teacher: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """ALIFE, stage 1: CE + 3 ALI + KD (KD on pixels that are not unlabelled)."""
    log_p = enlarge(student, label, align_corners).log_softmax(dim=1)
    p_teacher = enlarge(teacher, label, align_corners).softmax(dim=1)
    old = teacher.shape[1]
    unlabelled = label == 0
    agreement = (p_teacher * log_p[:, :old]).sum(dim=1)
    kd = (log_p[:, :old].logsumexp(dim=1) - agreement) / old
    return label_cross_entropy(log_p, label) + 3 * mean_over(-agreement, unlabelled) + mean_over(kd, ~unlabelled)


def alife_term_by_term(student: Tensor, teacher: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """The same, each term from its own formula; only the enlarged logits and p' are shared."""
    z = enlarge(student, label, align_corners)
    p_teacher = enlarge(teacher, label, align_corners).softmax(dim=1)
    old = teacher.shape[1]
    unlabelled = label == 0
    labelled = label.masked_fill(unlabelled, IGNORED)
    ce = F.cross_entropy(z, labelled, ignore_index=IGNORED, reduction="sum") / label.numel()
    ali = z.logsumexp(dim=1) - (p_teacher * z[:, :old]).sum(dim=1)
    kd = -(p_teacher * z[:, :old].log_softmax(dim=1)).sum(dim=1) / old
    return ce + 3 * mean_over(ali, unlabelled) + mean_over(kd, ~unlabelled)


def mib(student: Tensor, teacher: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """MiB: CCE + 10 CKD, both over all pixels; MiB turns 255 into 0 beforehand, so there is no 255."""
    log_p = enlarge(student, label, align_corners).log_softmax(dim=1)
    p_teacher = enlarge(teacher, label, align_corners).softmax(dim=1)
    any_old = log_p[:, : teacher.shape[1]].logsumexp(dim=1)
    cce = label_cross_entropy(log_p, label) - (any_old * (label == 0)).sum() / label.numel()
    return cce + 10 * _ckd(log_p, p_teacher).mean()


def _ckd(log_p: Tensor, p_teacher: Tensor) -> Tensor:
    old = p_teacher.shape[1]
    background_or_new = torch.cat([log_p[:, :1], log_p[:, old:]], dim=1).logsumexp(dim=1)
    rest = (p_teacher[:, 1:] * log_p[:, 1:old]).sum(dim=1)
    return -(p_teacher[:, 0] * background_or_new + rest) / old


def ce(student: Tensor, teacher: Tensor | None, label: Tensor, align_corners: bool) -> Tensor:
    """CE alone at a later step: 0 is unlabelled."""
    return label_cross_entropy(enlarge(student, label, align_corners).log_softmax(dim=1), label)


def base_step(student: Tensor, teacher: Tensor | None, label: Tensor, align_corners: bool) -> Tensor:
    """CE where 0 is a class like the others."""
    z = enlarge(student, label, align_corners)
    return F.cross_entropy(z, label, ignore_index=IGNORED, reduction="sum") / label.numel()


def kd(student: Tensor, teacher: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """KD alone, over all pixels; new classes need not be enlarged for it."""
    old = teacher.shape[1]
    z_old = enlarge(student[:, :old], label, align_corners)
    return F.cross_entropy(z_old, enlarge(teacher, label, align_corners).softmax(dim=1)) / old


def focal_ali(student: Tensor, teacher: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """ALIFE, stage 3 without its memory: focal loss with pseudo-labels + 3 ALI."""
    log_p = enlarge(student, label, align_corners).log_softmax(dim=1)
    z_teacher = enlarge(teacher, label, align_corners)
    unlabelled = label == 0
    agreement = (z_teacher.softmax(dim=1) * log_p[:, : teacher.shape[1]]).sum(dim=1)
    return _focal(log_p, z_teacher, label) + 3 * mean_over(-agreement, unlabelled)


def _focal(log_p: Tensor, z_teacher: Tensor, label: Tensor) -> Tensor:
    target = torch.where(label == 0, z_teacher.argmax(dim=1), label)
    log_p_target = -F.nll_loss(log_p, target, ignore_index=IGNORED, reduction="none")
    return -((1 - log_p_target.exp()) ** 2 * log_p_target).sum() / label.numel()


def all_terms(student: Tensor, teacher: Tensor, label: Tensor, align_corners: bool) -> Tensor:
    """Every term, each with weight 1 and the averages of `ciss_fast.softmax_loss`'s defaults."""
    log_p = enlarge(student, label, align_corners).log_softmax(dim=1)
    z_teacher = enlarge(teacher, label, align_corners)
    p_teacher = z_teacher.softmax(dim=1)
    old = teacher.shape[1]
    unlabelled, valid = label == 0, label != IGNORED
    agreement = (p_teacher * log_p[:, :old]).sum(dim=1)
    any_old = log_p[:, :old].logsumexp(dim=1)
    ce_sum = F.nll_loss(log_p, label.masked_fill(unlabelled, IGNORED), ignore_index=IGNORED, reduction="sum")
    cce = (ce_sum - (any_old * unlabelled).sum()) / valid.sum().clamp(min=1)
    return (
        ce_sum / label.numel()
        + cce
        + mean_over((any_old - agreement) / old, ~unlabelled)
        + _ckd(log_p, p_teacher).mean()
        + mean_over(-agreement, unlabelled)
        + _focal(log_p, z_teacher, label)
    )
