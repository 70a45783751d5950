"""The losses as modules: what a training script configures once and calls at every iteration."""

from __future__ import annotations

from torch import Tensor, nn

from .ops.softmax_loss import softmax_loss
from .ops.softmax_loss.options import DEFAULT_AVERAGE, TERMS

_OPTIONS = {  # every keyword of softmax_loss and its default
    **dict.fromkeys(TERMS, 0.0),
    "old_classes": None,
    "align_corners": False,
    "alpha": 1.0,
    "ignore_index": 255,
    **{f"{name}_average": average for name, average in DEFAULT_AVERAGE.items()},
    "kd_region": "not_unlabelled",
    "check_labels": True,
    "backend": None,
}


class SoftmaxLoss(nn.Module):
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

    def __init__(self, **options: float | int | str | bool | None) -> None:
        super().__init__()
        for name in options:
            if name not in _OPTIONS:
                raise TypeError(f"{name}: expected one of {', '.join(_OPTIONS)}")
        self.options = dict(options)

    def forward(self, student: Tensor, teacher: Tensor | None, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Total and terms, see `ciss_fast.softmax_loss` (which also says what is raised).

        Args:
            student: logits [B, C, h, w], channels in learning order.
            teacher: logits [B, old_classes, h, w] of the previous step's model, or None.
            label: channel ids [B, H, W].
        """
        return softmax_loss(student, teacher, label, **self.options)

    def extra_repr(self) -> str:
        """The options that differ from their defaults, in the order of `ciss_fast.softmax_loss`."""
        changed = [name for name in _OPTIONS if self.options.get(name, _OPTIONS[name]) != _OPTIONS[name]]
        return ", ".join(f"{name}={self.options[name]!r}" for name in changed)
