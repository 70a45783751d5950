"""What a call of `reasoning_loss` asks for, and the checks of its arguments and of `reasoning_scores`'."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..loss_options import LossOptions, check_number, check_weights
from ..tensors import check_dense, check_float_type

# The order of the weights and values of the operator.
TERMS = ("pos", "neg")


@dataclass(frozen=True)
class ReasoningLossOptions(LossOptions):
    """Checked options of one call; see `ciss_fast.reasoning_loss` for their meaning."""


def check_types(tensors: dict[str, object], options: ReasoningLossOptions) -> None:
    """Raise TypeError naming the first argument that is not of its kind at all."""
    for name, tensor in tensors.items():
        check_dense(name, tensor)
    for name, number in options.weights.items():
        check_number(name, number)


def check_options(options: ReasoningLossOptions) -> None:
    """Raise ValueError for weights that are not finite or all 0."""
    check_weights(options.weights)


def check_classifier(feature: Tensor, weight: Tensor, suffix: str = "") -> None:
    """Raise TypeError or ValueError unless ``weight`` [C, D] can be applied to ``feature`` [B, D, h, w].

    ``suffix`` ends the names of both in messages.
    """
    names = f"feature{suffix}", f"weight{suffix}"
    for name, tensor in zip(names, (feature, weight), strict=True):
        check_float_type(name, tensor)
    if feature.dim() != 4 or feature.shape[1] < 1:
        raise ValueError(f"{names[0]}: expected [B, D, h, w] with D >= 1, got shape {list(feature.shape)}")
    channels = feature.shape[1]
    if weight.dim() != 2 or weight.shape[0] < 1 or weight.shape[1] != channels:
        raise ValueError(
            f"{names[1]}: expected [C, D] with C >= 1 and D = {channels} (the {names[0]}'s channels), "
            f"got shape {list(weight.shape)}"
        )
    if weight.device != feature.device:
        raise ValueError(f"{names[1]}: expected device {feature.device} like the {names[0]}, got {weight.device}")


def check_bias(weight: Tensor, bias: Tensor) -> None:
    """Raise TypeError or ValueError unless ``bias`` is [C] for ``weight`` [C, D]."""
    check_float_type("bias", bias)
    if list(bias.shape) != [weight.shape[0]]:
        raise ValueError(f"bias: expected [C] = {[weight.shape[0]]}, got shape {list(bias.shape)}")
    if bias.device != weight.device:
        raise ValueError(f"bias: expected device {weight.device} like the weight, got {bias.device}")


def check_student_and_teacher(feature: Tensor, weight: Tensor, feature_old: Tensor, weight_old: Tensor) -> None:
    """Raise TypeError or ValueError when types, shapes or devices do not fit together."""
    check_classifier(feature, weight)
    check_classifier(feature_old, weight_old, "_old")
    size, size_old = ([x.shape[0], x.shape[2], x.shape[3]] for x in (feature, feature_old))
    if size_old != size:
        raise ValueError(f"feature_old: expected [B, h, w] = {size} like the feature, got {size_old}")
    if weight_old.shape[0] != weight.shape[0]:
        raise ValueError(
            f"weight_old: expected C = {weight.shape[0]} rows like the weight (its rows of the old classes), "
            f"got shape {list(weight_old.shape)}"
        )
    if feature_old.device != feature.device:
        raise ValueError(f"feature_old: expected device {feature.device} like the feature, got {feature_old.device}")
