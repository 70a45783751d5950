"""What a method takes from the recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from ..errors import ConfigError

BATCH_NORM_CHOICES = ("published", "backbone", "all", "none")


@dataclass(frozen=True)
class MethodSettings:
    """The recipe's values that a method reads. `default_settings` gives the published ones.

    loss_weights: weight by loss term (ALIFE: "ali", "kd"; MiB: "ckd"; fine-tuning and joint: none), one
        number for all later steps or a list with one number for each later step, step 1 first.
    align_corners: how logits are enlarged to the label. True is ALIFE's network, on which all methods run
        here so that they compare and may share a base step; MiB's own code has False.
    alpha: multiplies the teacher's logits before its softmax (MiB; 1 in its recipe).
    freeze_batch_norm: which batch norms keep their statistics and affine values.
        "published": those that the method freezes (ALIFE: backbone and ASPP at later steps; else none).
        "backbone": these, and the backbone's at every step, base step included (small batches).
        "all": every one, at every step (also allows batches of one image).
        "none": none, whatever the method says.
    dropout_at_later_steps: keep dropout on at later steps; the published recipes switch it off.
    *_lr_multiplier: multiplies the step's learning rate for one parameter group. 0 keeps its parameters as
        they are, and no gradient is computed for them; batch-norm statistics move all the same.
    published: True if ``loss_weights`` are a paper's for this task; for information only.

    Raises `ConfigError` for a value outside these.
    """

    loss_weights: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    align_corners: bool = True
    alpha: float = 1.0
    freeze_batch_norm: str = "published"
    dropout_at_later_steps: bool = False
    backbone_lr_multiplier: float = 1.0
    head_lr_multiplier: float = 1.0
    old_classifiers_lr_multiplier: float = 1.0
    new_classifier_lr_multiplier: float = 1.0
    published: bool = False

    def __post_init__(self) -> None:
        if self.freeze_batch_norm not in BATCH_NORM_CHOICES:
            known = ", ".join(BATCH_NORM_CHOICES)
            raise ConfigError(f"freeze_batch_norm: expected one of {known}, got {self.freeze_batch_norm!r}")
        for entry in fields(self):
            if entry.name.endswith("_lr_multiplier"):
                _check_number(entry.name, getattr(self, entry.name))
        for term, weight in self.loss_weights.items():
            for number in weight if _is_list(weight) else [weight]:
                _check_number(f"loss weight {term!r}", number)

    def loss_weight(self, term: str, step: int) -> float:
        """The weight of ``term`` at a later step (``step >= 1``).

        Raises `ConfigError` if there is none, or the list has no entry for this step.
        """
        if term not in self.loss_weights:
            raise ConfigError(f"loss weight {term!r}: missing, got {', '.join(self.loss_weights) or 'none'}")
        weight = self.loss_weights[term]
        if not _is_list(weight):
            return float(weight)
        if not 1 <= step <= len(weight):
            raise ConfigError(
                f"loss weight {term!r}: {len(weight)} values, one per later step; none for step {step}"
            )
        return float(weight[step - 1])


def _is_list(weight: float | Sequence[float]) -> bool:
    return isinstance(weight, Sequence) and not isinstance(weight, str)


def _check_number(name: str, value: object) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value < 0
    ):
        raise ConfigError(f"{name}: expected a finite number >= 0, got {value!r}")
