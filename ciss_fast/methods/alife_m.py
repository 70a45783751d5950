"""ALIFE-M: ALIFE with a memory of features, rotated into every new feature space.

Oh, Baek and Ham, "ALIFE: Adaptive Logit Regularizer and Feature Replay for Incremental Semantic Segmentation",
NeurIPS 2022.
"""

from __future__ import annotations

from torch import Tensor

import ciss_fast
from ciss_fast.memory.replay import memory_cross_entropy

from .alife import ALIFE
from .method import LossAndTerms
from .settings import MethodSettings
from .stage import EXTRACT, REPLAY, ROTATE, TRAIN, Stage


class ALIFEM(ALIFE):
    """ALIFE (stage 1), then rotations for the memory (stage 2), then the classifiers alone (stage 3).

    Stage 3's loss is focal(pseudo-labels) + lambda_replay_ali ALI on the step's images + lambda_memory
    cross-entropy on the memory. The teacher of stages 1 and 3 is the model that the step before ended with.
    """

    name = "alife-m"
    loss_terms = ("ali", "kd", "replay_ali", "memory")
    feature_memory = True

    def stages(self, step: int) -> tuple[Stage, ...]:
        return (TRAIN, EXTRACT) if step == 0 else (TRAIN, ROTATE, REPLAY, EXTRACT)

    def replay_loss(
        self,
        student: Tensor,
        teacher: Tensor,
        label: Tensor,
        classifier: tuple[Tensor, Tensor],
        memory: Tensor | None,
        step: int,
        settings: MethodSettings,
    ) -> LossAndTerms:
        """The loss of stage 3.

        Args:
            student, teacher: logits [B, C, h, w] and [B, K, h, w].
            label: as in `loss`.
            classifier: weight [C, D] and bias [C] of the student's classifiers, through which the gradient of the
                memory's term goes.
            memory: features [K, S, D] in the student's feature space; None to do without.

        Returns (scalar with gradient, detached scalars by name) as `loss` does.
        """
        total, terms = ciss_fast.softmax_loss(
            student,
            teacher,
            label,
            focal=1.0,
            ali=settings.loss_weight("replay_ali", step),
            align_corners=settings.align_corners,
        )
        weight = settings.loss_weight("memory", step)
        if memory is None or weight == 0:
            return total, terms
        replayed = memory_cross_entropy(*classifier, memory)
        return total + weight * replayed, {**terms, "memory": replayed.detach()}
