"""Launches that the losses' Triton implementations share. No value is read back to the host."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..triton_runtime import OPTIONS
from .axis import longest_reach
from .triton_gradient import find_poison, gather_from_pixels, spread_poison
from .triton_sums import add_sums

MOST_ADDED = 128
"""The most rows that `added` returns."""

_NODES = 64  # of a program of `find_poison`


def is_wide(logits: Tensor, label: Tensor) -> bool:
    """Whether the number of a pixel in its image, or the numerator of its position, may not fit in 32 bits."""
    height, width = logits.shape[2:]
    rows, columns = label.shape[1:]
    return max(rows * columns, 4 * rows * (height + 1), 4 * columns * (width + 1)) >= 2**31


def added(sums: Tensor, used: int) -> Tensor:
    """At most `MOST_ADDED` rows, in double precision, with the same sum as ``sums`` in their first columns."""
    programs, columns = sums.shape
    share = triton.cdiv(programs, MOST_ADDED)
    rows = sums.new_empty((triton.cdiv(programs, share), columns), dtype=torch.float64)
    add_sums[(rows.shape[0],)](
        sums, rows, programs, share, COLUMNS=columns, USED=used, BLOCK=32, num_warps=1, **OPTIONS
    )
    return rows


def rows_of_search(logits: Tensor) -> int:
    """Rows of sums that `search` fills."""
    batch, _, height, width = logits.shape
    return batch * triton.cdiv(height * width, _NODES)


def search(logits: Tensor, rows: Tensor, column: int) -> None:
    """Fill rows of sums with zeros, and NaN in ``column`` where one of the logits is not finite."""
    batch, classes, height, width = logits.shape
    find_poison[(triton.cdiv(height * width, _NODES), batch)](
        logits, rows, classes, height, width, *logits.stride(),
        COLUMN=column, COLUMNS=rows.shape[1], NODES=_NODES, CLASSES=16, num_warps=4, **OPTIONS,
    )  # fmt: skip


def fold_pixels(pixels: Tensor, gradient: Tensor, poison: Tensor, align_corners: bool, wide: bool) -> None:
    """Fill the gradient on the logits from the gradient at every pixel; add ``poison``, 0 or NaN."""
    batch, classes, height, width = gradient.shape
    rows, columns = pixels.shape[2:]
    nodes = min(32, triton.next_power_of_2(width))
    gather_from_pixels[(height * triton.cdiv(width, nodes), triton.cdiv(classes, 16), batch)](
        pixels, gradient, poison, classes, height, width, rows, columns,
        longest_reach(width, columns, align_corners), *gradient.stride(),
        ALIGN_CORNERS=align_corners, NODES=nodes, CLASSES=16, WIDE=wide, num_warps=4, **OPTIONS,
    )  # fmt: skip


def poison_all(gradient: Tensor, poison: Tensor) -> None:
    """Make a dense gradient NaN where ``poison`` is."""
    block = 4096
    spread_poison[(triton.cdiv(gradient.numel(), block),)](
        gradient, poison, gradient.numel(), BLOCK=block, num_warps=4, **OPTIONS
    )
