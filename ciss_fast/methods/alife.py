"""ALIFE, "Adaptive Logit Regularizer and Feature Replay for Incremental Semantic Segmentation", stage 1.

Oh, Baek and Ham, NeurIPS 2022.
"""

from __future__ import annotations

from types import MappingProxyType

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
    start from background as in MiB.
    """

    name = "alife"
    loss_terms = ("ali", "kd")
    region_terms = MappingProxyType({"ali": "unlabelled", "kd": "not_unlabelled"})

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
        return ciss_fast.softmax_loss(
            student.logits,
            teacher.logits,
            label,
            ce=1.0,
            ce_average="all",
            ali=settings.loss_weight("ali", step),
            kd=settings.loss_weight("kd", step),
            kd_region="not_unlabelled",
            align_corners=settings.align_corners,
        )
