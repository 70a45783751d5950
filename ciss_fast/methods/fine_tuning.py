"""Fine-tuning: train on the new step's labels as if nothing had come before; the lower bound."""

from __future__ import annotations

from torch import Tensor

import ciss_fast

from ..models import SegmentationOutput
from .method import LossAndTerms, Method
from .settings import MethodSettings


def plain_cross_entropy(student: SegmentationOutput, label: Tensor, settings: MethodSettings) -> LossAndTerms:
    """Cross-entropy over everything but 255, background a class like the others, divided by all pixels."""
    return ciss_fast.softmax_loss(
        student.logits, None, label, ce=1.0, ce_average="all", align_corners=settings.align_corners
    )


class FineTuning(Method):
    """Cross-entropy at every step, unlabelled pixels as background; new classifiers start at random."""

    name = "fine-tuning"

    def loss(
        self,
        student: SegmentationOutput,
        teacher: SegmentationOutput | None,
        label: Tensor,
        step: int,
        settings: MethodSettings,
    ) -> LossAndTerms:
        return plain_cross_entropy(student, label, settings)
