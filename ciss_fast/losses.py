"""The losses as modules: what a training script configures once and calls at every iteration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from .ops.sigmoid_loss import sigmoid_loss
from .ops.softmax_loss import softmax_loss


class _LogitsLoss(nn.Module):
    """A loss function of student, teacher and label with its options kept. Subclasses name the function."""

    function: ClassVar[Callable[..., tuple[Tensor, dict[str, Tensor]]]]
    defaults: ClassVar[dict[str, Any]]
    """Every option of the function and its default."""

    def __init_subclass__(cls, *, function: Callable[..., tuple[Tensor, dict[str, Tensor]]]) -> None:
        super().__init_subclass__()
        cls.function = staticmethod(function)
        parameters = inspect.signature(function).parameters.values()
        cls.defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def __init__(self, **options: float | int | str | bool | None) -> None:
        super().__init__()
        for name in options:
            if name not in self.defaults:
                raise TypeError(f"{name}: expected one of {', '.join(self.defaults)}")
        self.options = dict(options)

    def forward(self, student: Tensor, teacher: Tensor | None, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Total and terms, see the function (which also says what is raised).

        Args:
            student: logits [B, C, h, w], channels in learning order.
            teacher: logits of the previous step's model at the same resolution, or None.
            label: class ids [B, H, W].
        """
        return self.function(student, teacher, label, **self.options)

    def extra_repr(self) -> str:
        """The options that differ from their defaults, in the order of the function's."""
        given = {name: self.options.get(name, default) for name, default in self.defaults.items()}
        return ", ".join(f"{name}={value!r}" for name, value in given.items() if value != self.defaults[name])


class SoftmaxLoss(_LogitsLoss, function=softmax_loss):
    """`ciss_fast.softmax_loss` with its options kept: MiB's and ALIFE's losses on network-resolution logits.

    ``SoftmaxLoss(ce=1.0, ali=3.0, kd=1.0)`` is ALIFE's first stage, ``SoftmaxLoss(cce=1.0, ckd=10.0)`` MiB's
    loss, ``SoftmaxLoss(ce=1.0)`` the base step's. It has no parameters and no buffers.

    Args:
        **options: the keyword arguments of `ciss_fast.softmax_loss`, with the same defaults: weights of the terms
            (``ce``, ``cce``, ``kd``, ``ckd``, ``ali``, ``focal``), ``old_classes``, ``align_corners``, ``alpha``,
            ``ignore_index``, ``ce_average`` ... ``focal_average``, ``kd_region``, ``check_labels``, ``backend``.
            They may be changed between calls through the attribute ``options``.

    Raises:
        TypeError: an option that does not exist.
    """


class SigmoidLoss(_LogitsLoss, function=sigmoid_loss):
    """`ciss_fast.sigmoid_loss` with its options kept: DKD's losses on network-resolution logits.

    ``SigmoidLoss(mbce=1.0, kd=5.0, ac=1.0)`` is the part of DKD's loss that reads logits (its reasoning losses read
    features), ``SigmoidLoss(mbce=1.0, ac=1.0, pos_weight=2.0)`` the base step's on Pascal VOC. It has no parameters
    and no buffers.

    Args:
        **options: the keyword arguments of `ciss_fast.sigmoid_loss`, with the same defaults: weights of the terms
            (``mbce``, ``kd``, ``ac``), ``pos_weight``, ``old_classes``, ``align_corners``, ``ignore_index``,
            ``check_labels``, ``backend``. They may be changed between calls through the attribute ``options``.

    Raises:
        TypeError: an option that does not exist.
    """
