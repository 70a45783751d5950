"""Launches that the losses' Triton implementations share. No value is read back to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ..triton_runtime import OPTIONS
from .axis import Pieces, pieces
from .triton_cells import CORNERS
from .triton_gradient import find_poison, gather_from_cells, make_table, spread_poison
from .triton_sums import add_sums

MOST_ADDED = 128
"""The most rows that `added` returns."""

LONGEST_PIECE = 17
"""The most pixels of a cell along an axis: all between two nodes for logits of a sixteenth of the label's size."""

MOST_IMAGES = 65535  # programs that a card takes along the axes of a grid behind the first
_NODES = 64  # of a program of `find_poison`
_PITCH = 32  # tables have a multiple of so many entries a node


def check_batch(loss: str, logits: Tensor) -> None:
    """Raise ValueError for more images than a grid has room for."""
    if len(logits) > MOST_IMAGES:
        raise ValueError(f"{loss}: the Triton kernels take at most {MOST_IMAGES} images, got {len(logits)}")


def is_wide(logits: Tensor, label: Tensor) -> bool:
    """Whether the number of a pixel in its image, or the numerator of its position, may not fit in 32 bits."""
    height, width = logits.shape[2:]
    rows, columns = label.shape[1:]
    return max(rows * columns, 4 * rows * (height + 2), 4 * columns * (width + 2)) >= 2**31


@dataclass(frozen=True)
class Cells:
    """The cells of a call, and the room its partial gradients need: [batch, count, corners, pitch]."""

    rows: Pieces
    columns: Pieces
    batch: int
    classes: int

    @staticmethod
    def of(logits: Tensor, label: Tensor, align_corners: bool) -> Cells:
        """Cells of logits [B, C, h, w] enlarged (or shrunk) to labels [B, H, W]."""
        axes = zip(logits.shape[2:], label.shape[1:], strict=True)
        return Cells(*(pieces(*axis, align_corners, LONGEST_PIECE) for axis in axes), *logits.shape[:2])

    @property
    def count(self) -> int:
        """Cells of an image."""
        return self.rows.count * self.columns.count

    @property
    def pitch(self) -> int:
        """Entries of a node or corner in tables: the classes, filled up."""
        return triton.cdiv(self.classes, _PITCH) * _PITCH

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Arguments of kernels: pieces of a row, cuts of rows and columns."""
        return self.columns.count, self.rows.cuts, self.columns.cuts

    def empty_partial(self, like: Tensor) -> Tensor:
        """Room for the partial gradients."""
        return like.new_empty((self.batch, self.count, CORNERS.value, self.pitch), dtype=torch.float32)


def table_of(
    logits: Tensor, cells: Cells, scale: float = 1.0, first_class: int = 0, *, shifted: bool = False
) -> Tensor:
    """The table [nodes, pitch] that `make_table` fills."""
    batch, classes, height, width = logits.shape
    table = logits.new_empty((batch * height * width, cells.pitch), dtype=torch.float32)
    make_table[(triton.cdiv(height * width, 32), batch)](
        logits, table, classes, first_class, height, width, cells.pitch, scale, *logits.stride(),
        SHIFTED=shifted, NODES=32, CLASSES=32, num_warps=4, **OPTIONS,
    )  # fmt: skip
    return table


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


def gather(
    partial: Tensor,
    gradient: Tensor,
    poison: Tensor,
    label: Tensor,
    cells: Cells,
    align_corners: bool,
    wide: bool,
    unread: tuple[int, int] = (0, 0),
) -> None:
    """Fill the gradient on the logits from the cells' and add ``poison``, 0 or NaN; 0 for classes of ``unread``."""
    batch, classes, height, width = gradient.shape
    nodes = min(32, triton.next_power_of_2(width))
    gather_from_cells[(height * triton.cdiv(width, nodes), triton.cdiv(classes, 32), batch)](
        partial, gradient, poison, classes, *unread, height, width, *label.shape[1:],
        cells.rows.count, *cells.geometry, cells.pitch, *gradient.stride(),
        ALIGN_CORNERS=align_corners, NODES=nodes, CLASSES=32, WIDE=wide, num_warps=4, **OPTIONS,
    )  # fmt: skip


def poison_all(gradient: Tensor, poison: Tensor) -> None:
    """Make a dense gradient NaN where ``poison`` is."""
    block = 4096
    spread_poison[(triton.cdiv(gradient.numel(), block),)](
        gradient, poison, gradient.numel(), BLOCK=block, num_warps=4, **OPTIONS
    )
