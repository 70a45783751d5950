"""What a call of `sigmoid_loss` asks for, and the checks of its arguments."""

from __future__ import annotations

from dataclasses import dataclass

from ..loss_options import LossOptions, check_flag, check_integer, check_number, check_positive, check_weights
from ..tensors import check_dense, check_ignore_index

# The order of the weights and values of the kernel.
TERMS = ("mbce", "kd", "ac")


@dataclass(frozen=True)
class SigmoidLossOptions(LossOptions):
    """Checked options of one call; see `ciss_fast.sigmoid_loss` for their meaning."""

    pos_weight: float = 1.0
    old_classes: int = 0
    align_corners: bool = False
    ignore_index: int = 255
    check_labels: bool = True

    def reads_teacher(self) -> bool:
        """Whether a term to compute needs the teacher's logits."""
        return self.weights["kd"] != 0 and self.old_classes > 0


def check_types(student: object, teacher: object, label: object, options: SigmoidLossOptions) -> None:
    """Raise TypeError naming the first argument that is not of its kind at all."""
    check_dense("student", student)
    if teacher is not None:
        check_dense("teacher", teacher)
    check_dense("label", label)
    for name, number in {**options.weights, "pos_weight": options.pos_weight}.items():
        check_number(name, number)
    for name in ("old_classes", "ignore_index"):
        check_integer(name, getattr(options, name))
    for name in ("align_corners", "check_labels"):
        check_flag(name, getattr(options, name))


def check_options(options: SigmoidLossOptions, has_teacher: bool) -> None:
    """Raise ValueError for values that do not exist or do not fit together."""
    check_weights(options.weights)
    check_positive("pos_weight", options.pos_weight)
    check_ignore_index(options.ignore_index)
    if options.weights["kd"] != 0 and not has_teacher:
        raise ValueError("teacher: expected logits for the term kd, got None")
