"""What a call of `softmax_loss` asks for: weights, averaging, regions; and the checks of its arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..loss_options import LossOptions, check_flag, check_integer, check_number, check_positive, check_weights
from ..tensors import check_dense, check_ignore_index

TERMS = ("ce", "cce", "kd", "ckd", "ali", "focal")
AVERAGES = ("all", "valid", "region")
KD_REGIONS = ("not_unlabelled", "all", "unlabelled")
NEEDS_TEACHER = ("kd", "ckd", "ali")

# How the papers' code averages: CE and focal over all pixels, CCE over those not ignored, ALI and KD over the
# pixels they apply to, CKD over all.
DEFAULT_AVERAGE = {"ce": "all", "cce": "valid", "kd": "region", "ckd": "all", "ali": "region", "focal": "all"}


@dataclass(frozen=True)
class SoftmaxLossOptions(LossOptions):
    """Checked options of one call; see `ciss_fast.softmax_loss` for their meaning."""

    old_classes: int = 0
    align_corners: bool = False
    alpha: float = 1.0
    ignore_index: int = 255
    average: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_AVERAGE))
    kd_region: str = "not_unlabelled"
    check_labels: bool = True

    def reads_teacher(self) -> bool:
        """Whether a term to compute needs the teacher's logits, where there are any."""
        return any(name in self.active_weights() for name in (*NEEDS_TEACHER, "focal"))


def check_types(student: object, teacher: object, label: object, options: SoftmaxLossOptions) -> None:
    """Raise TypeError naming the first argument that is not of its kind at all."""
    check_dense("student", student)
    if teacher is not None:
        check_dense("teacher", teacher)
    check_dense("label", label)
    for name, number in {**options.weights, "alpha": options.alpha}.items():
        check_number(name, number)
    for name in ("old_classes", "ignore_index"):
        check_integer(name, getattr(options, name))
    for name in ("align_corners", "check_labels"):
        check_flag(name, getattr(options, name))


def check_options(options: SoftmaxLossOptions, has_teacher: bool) -> None:
    """Raise ValueError for values that do not exist or do not fit together."""
    check_weights(options.weights)
    for name in TERMS:
        if options.average[name] not in AVERAGES:
            raise ValueError(
                f"{name}_average: expected one of {', '.join(AVERAGES)}, got {options.average[name]!r}"
            )
    if options.kd_region not in KD_REGIONS:
        raise ValueError(f"kd_region: expected one of {', '.join(KD_REGIONS)}, got {options.kd_region!r}")
    check_positive("alpha", options.alpha)
    check_ignore_index(options.ignore_index)
    if not has_teacher:
        active = options.active_weights()
        wanting = [name for name in NEEDS_TEACHER if name in active]
        if "focal" in active and options.old_classes > 0:
            wanting.append("focal")  # unlabelled pixels take the teacher's pseudo-label
        if wanting:
            raise ValueError(f"teacher: expected logits for the terms {', '.join(wanting)}, got None")
