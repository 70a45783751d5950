"""ALIFE, "Adaptive Logit Regularizer and Feature Replay for Incremental Semantic Segmentation", stage 1.

Oh, Baek and Ham, NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

import ciss_fast

from ..models import SegmentationModel, SegmentationOutput
from .fine_tuning import plain_cross_entropy
from .initialisation import start_from_background
from .method import LossAndTerms, Method
from .settings import MethodSettings


class ALIFE(Method):
    """CE + lambda_ali ALI + lambda_kd KD (KD on the pixels that are not unlabelled).

    At later steps the batch norms of backbone and ASPP are frozen, the head's stays trained; new classifiers
    start from background as in MiB. Ablations are weights of 0 and ``unbiased_terms``.
    """

    name = "alife"
    loss_terms = ("ali", "kd")

    def regions(self, settings: MethodSettings) -> Mapping[str, str]:
        return {"ali": "unlabelled"} | ({} if settings.unbiased_terms else {"kd": "not_unlabelled"})

    def needs_teacher(self, step: int) -> bool:
        return step > 0

    def initialise_classifier(self, model: SegmentationModel) -> None:
        start_from_background(model)

    def frozen_batch_norm_parts(self, model: SegmentationModel, step: int) -> list[nn.Module]:
        return [model.backbone, model.aspp] if step > 0 else []

    def loss(
        self,
        student: SegmentationOutput,
        teacher: SegmentationOutput | None,
        label: Tensor,
        step: int,
        settings: MethodSettings,
    ) -> LossAndTerms:
        if step == 0:
            return plain_cross_entropy(student, label, settings)
        ali, kd = settings.loss_weight("ali", step), settings.loss_weight("kd", step)
        if settings.unbiased_terms:
            terms = {"cce": 1.0, "cce_average": "all", "ckd": kd}
        else:
            terms = {"ce": 1.0, "ce_average": "all", "kd": kd, "kd_region": "not_unlabelled"}
        return ciss_fast.softmax_loss(
            student.logits,
            teacher.logits,
            label,
            **terms,
            ali=ali,
            align_corners=settings.align_corners,
        )
