"""MiB, "Modeling the Background for Incremental Learning in Semantic Segmentation".

Cermelli et al., CVPR 2020.
"""

from __future__ import annotations

from torch import Tensor

import ciss_fast

from ..models import SegmentationModel, SegmentationOutput
from .fine_tuning import plain_cross_entropy
from .initialisation import start_from_background
from .method import LossAndTerms, Method
from .settings import MethodSettings


class MiB(Method):
    """CCE + lambda_ckd CKD (unbiased cross-entropy and distillation); new classifiers start from background.

    As in its reference implementation 255 counts as unlabelled in training, so both terms average over all
    pixels.
    """

    name = "mib"
    loss_terms = ("ckd",)

    def needs_teacher(self, step: int) -> bool:
        return step > 0

    def label_options(self, step: int) -> dict[str, bool]:
        return {"ignore_as_background": True}

    def initialise_classifier(self, model: SegmentationModel) -> None:
        start_from_background(model)

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
            cce=1.0,
            cce_average="all",
            ckd=settings.loss_weight("ckd", step),
            alpha=settings.alpha,
            align_corners=settings.align_corners,
        )
