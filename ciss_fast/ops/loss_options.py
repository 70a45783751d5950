"""What the options of all losses share: weights of terms, and checks of numbers and flags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real


@dataclass(frozen=True)
class LossOptions:
    """Options of one call of a loss. ``weights`` has every term of the loss, in the loss's own order."""

    weights: dict[str, float]

    def active_weights(self) -> dict[str, float]:
        """The terms to compute, in order: those whose weight is not 0."""
        return {name: weight for name, weight in self.weights.items() if weight != 0}


def check_number(name: str, number: object) -> None:
    """Raise TypeError unless ``number`` is a real number (True and False are none)."""
    if isinstance(number, bool) or not isinstance(number, (float, int, Real)):
        raise TypeError(f"{name}: expected a number, got {number!r}")


def check_integer(name: str, number: object) -> None:
    """Raise TypeError unless ``number`` is a whole number."""
    if isinstance(number, bool) or not isinstance(number, (int, Integral)):
        raise TypeError(f"{name}: expected an integer, got {number!r}")


def check_flag(name: str, flag: object) -> None:
    """Raise TypeError unless ``flag`` is True or False."""
    if not isinstance(flag, bool):
        raise TypeError(f"{name}: expected True or False, got {flag!r}")


def check_positive(name: str, number: float) -> None:
    """Raise ValueError unless ``number`` is finite and above 0."""
    if not 0 < number < math.inf:  # math.isfinite cannot be traced by torch.compile
        raise ValueError(f"{name}: expected a finite number above 0, got {number}")


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise ValueError unless every term's weight is finite and one of them is not 0."""
    for name, weight in weights.items():
        if not -math.inf < weight < math.inf:
            raise ValueError(f"{name}: expected a finite weight, got {weight}")
    if not any(weights.values()):
        raise ValueError(f"weights: expected at least one of {', '.join(weights)} other than 0, got all 0")
