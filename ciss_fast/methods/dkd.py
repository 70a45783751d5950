"""DKD, "Decomposed Knowledge Distillation for Class-Incremental Semantic Segmentation", and DKD-M.

Baek, Oh, Lee, Lee and Ham, NeurIPS 2022.
"""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor, nn

import ciss_fast

from ..models import SegmentationModel, SegmentationOutput
from .initialisation import start_from_auxiliary
from .method import LossAndTerms, Method
from .settings import MethodSettings
from .stage import SELECT, TRAIN, Stage


class DKD(Method):
    """mBCE + lambda_kd KD + lambda_pos DKD+ + lambda_neg DKD- + lambda_ac AC; a sigmoid for every class.

    The base step trains mBCE + AC; the weight of AC is 1 there whatever the recipe says, since it decides
    nothing but how the auxiliary classifier itself is learnt. New classifiers start as copies of the auxiliary
    classifier of the step before. At later steps all batch norms are frozen, and only the new classifier has
    weight decay. Ablations are weights of 0 and ``new_classifier_start="random"``; the reference
    implementation starts at random where AC is 0, from Kaiming-normal weights where this takes PyTorch's
    default start, as for the base step's classifier.
    """

    name = "dkd"
    loss_terms = ("kd", "dkd_pos", "dkd_neg", "ac")
    prediction_kind = "sigmoid"
    uses_auxiliary_classifier = True
    lr_multipliers = MappingProxyType({"head": 10.0, "old_classifiers": 10.0, "new_classifier": 10.0})
    backbone_batch_norm_momentum = 0.01
    align_corners = False
    dropout = 0.1

    def needs_teacher(self, step: int) -> bool:
        return step > 0

    def initialise_classifier(self, model: SegmentationModel) -> None:
        start_from_auxiliary(model)

    def frozen_batch_norm_parts(self, model: SegmentationModel, step: int) -> list[nn.Module]:
        return [model] if step > 0 else []

    def groups_without_weight_decay(self, step: int) -> tuple[str, ...]:
        return ("backbone", "head", "old_classifiers") if step > 0 else ()

    def loss(
        self,
        student: SegmentationOutput,
        teacher: SegmentationOutput | None,
        label: Tensor,
        step: int,
        settings: MethodSettings,
    ) -> LossAndTerms:
        if step == 0:
            return ciss_fast.sigmoid_loss(
                student.logits,
                None,
                label,
                mbce=1.0,
                ac=1.0,
                pos_weight=settings.pos_weight_base,
                align_corners=settings.align_corners,
            )
        total, terms = ciss_fast.sigmoid_loss(
            student.logits,
            teacher.logits,
            label,
            mbce=1.0,
            kd=settings.loss_weight("kd", step),
            ac=settings.loss_weight("ac", step),
            pos_weight=settings.pos_weight_later,
            align_corners=settings.align_corners,
        )
        pos, neg = settings.loss_weight("dkd_pos", step), settings.loss_weight("dkd_neg", step)
        if pos == neg == 0:
            return total, terms
        old = slice(1, teacher.weight.shape[0])
        reasoning, parts = ciss_fast.reasoning_loss(
            student.features, student.weight[old], teacher.features, teacher.weight[old], pos=pos, neg=neg
        )
        return total + reasoning, {**terms, **{f"dkd_{name}": value for name, value in parts.items()}}


class DKDM(DKD):
    """DKD with an image memory: `ciss_fast.memory` says which images of earlier steps are replayed."""

    name = "dkd-m"
    image_memory = True

    def stages(self, step: int) -> tuple[Stage, ...]:
        return (SELECT, TRAIN) if step > 0 else (TRAIN,)
