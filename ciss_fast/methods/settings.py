"""What a method takes from the recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from ..errors import ConfigError

BATCH_NORM_CHOICES = ("published", "backbone", "backbone_only", "all", "none")
CLASSIFIER_START_CHOICES = ("published", "random")
FEATURE_REPLAY_CHOICES = ("rotated", "unrotated", "none")


@dataclass(frozen=True)
class MethodSettings:
    """The recipe's values that a method reads. `default_settings` gives the published ones.

    loss_weights: weight by loss term (ALIFE: "ali", "kd"; ALIFE-M: also "replay_ali" and "memory" of its stage 3;
        MiB: "ckd"; DKD: "kd", "dkd_pos", "dkd_neg", "ac"; fine-tuning and joint: none), one number for all later
        steps or a list with one number for each later step, step 1 first. A term of weight 0 is switched off.
    align_corners: how logits are enlarged to the label. True is ALIFE's network, on which all methods of the softmax
        family run here so that they compare and may share a base step, though MiB's own code has False. DKD has
        False.
    unbiased_terms: ALIFE's CE and KD are MiB's CCE and CKD, over all pixels as there, at the same weights.
    alpha: multiplies the teacher's logits before its softmax (MiB; 1 in its recipe).
    pos_weight_base, pos_weight_later: weight of the positive pixels in mBCE at the base step and at later ones,
        above 0 (DKD).
    feature_replay: ALIFE-M: "rotated": features of old classes are replayed after rotation into the new feature
        space. "unrotated": as they were taken. "none": there is no memory; stage 3 is without its term.
    rotation_weight: ALIFE-M's lambda_ROT, the weight of FID against REG, between 0 and 1.
    new_classifier_start: "published": as the method has it (MiB, ALIFE: from the background's; DKD: from the
        auxiliary classifier). "random": PyTorch's default start.
    freeze_batch_norm: which batch norms keep their statistics and affine values.
        "published": those that the method freezes (at later steps ALIFE's: backbone and ASPP; DKD's: all; else
        none).
        "backbone": these, and the backbone's at every step, base step included (small batches).
        "backbone_only": the backbone's at every step, whatever the method says.
        "all": every one, at every step (also allows batches of one image).
        "none": none, whatever the method says.
    backbone_batch_norm_momentum: how fast running statistics follow, above 0 up to 1. None: as the method
        publishes it (DKD 0.01, else 0.1).
    dropout_at_later_steps: keep dropout on at later steps; the published recipes switch it off.
    *_lr_multiplier: multiplies the step's learning rate for one parameter group. None: as the method
        publishes it (DKD: 10 for everything but the backbone; else 1). 0 keeps the group's parameters as they
        are, and no gradient is computed for them; batch-norm statistics move all the same.
    weight_decay_exemptions: leave out of weight decay the groups that the method publishes so (DKD at later
        steps: all but the new classifier). False: the recipe's weight decay for every group.
    published: True if ``loss_weights`` are a paper's for this task; for information only.

    Raises `ConfigError` for a value outside these.
    """

    loss_weights: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    align_corners: bool = True
    unbiased_terms: bool = False
    alpha: float = 1.0
    pos_weight_base: float = 1.0
    pos_weight_later: float = 1.0
    feature_replay: str = "rotated"
    rotation_weight: float = 0.99
    new_classifier_start: str = "published"
    freeze_batch_norm: str = "published"
    backbone_batch_norm_momentum: float | None = None
    dropout_at_later_steps: bool = False
    backbone_lr_multiplier: float | None = None
    head_lr_multiplier: float | None = None
    old_classifiers_lr_multiplier: float | None = None
    new_classifier_lr_multiplier: float | None = None
    weight_decay_exemptions: bool = True
    published: bool = False

    def __post_init__(self) -> None:
        _check_choice("freeze_batch_norm", self.freeze_batch_norm, BATCH_NORM_CHOICES)
        _check_choice("new_classifier_start", self.new_classifier_start, CLASSIFIER_START_CHOICES)
        _check_choice("feature_replay", self.feature_replay, FEATURE_REPLAY_CHOICES)
        if not (_is_number(self.rotation_weight) and 0 <= self.rotation_weight <= 1):
            raise ConfigError(f"rotation_weight: expected 0 to 1, got {self.rotation_weight!r}")
        momentum = self.backbone_batch_norm_momentum
        if momentum is not None and not (_is_number(momentum) and 0 < momentum <= 1):
            raise ConfigError(f"backbone_batch_norm_momentum: expected above 0 up to 1, got {momentum!r}")
        for name in ("pos_weight_base", "pos_weight_later"):
            _check_number(name, getattr(self, name), zero=False)
        for entry in fields(self):
            if entry.name.endswith("_lr_multiplier") and getattr(self, entry.name) is not None:
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


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def _check_number(name: str, value: object, *, zero: bool = True) -> None:
    if not _is_number(value) or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ConfigError(f"{name}: expected a finite number {'>=' if zero else '>'} 0, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
