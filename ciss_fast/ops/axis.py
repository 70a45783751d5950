"""How one axis of the label map reads the logits' axis: what a launch has to know before (see csrc/core/axis.h)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Pieces:
    """An axis of the label map cut into pieces that lie between the same two nodes, places of the logits' own axis.

    Attributes:
        count: pieces of the axis, empty ones included.
        cuts: pieces that every segment, the pixels between two nodes, is cut into.
        lengths: the numbers of pixels that pieces have, in increasing order.
    """

    count: int
    cuts: int
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Pixels of the longest piece."""
        return self.lengths[-1]


def segment_begin(node: int, source: int, output: int, align_corners: bool) -> int:
    """The first output pixel at ``node`` or behind it, up to and including ``output``.

    Node -1 is the border before the first one, which ``align_corners`` has not; there the last pixel belongs to the
    segment before it.
    """
    if align_corners:
        if node <= 0:
            return 0
        numerator, denominator = node * max(output - 1, 1), max(source - 1, 1)
        return output if node >= source - 1 else min(-(-numerator // denominator), output)
    if node < 0:
        return 0
    if node >= source:
        return output
    return min(-(-max((2 * node + 1) * output - source, 0) // (2 * source)), output)


@lru_cache(maxsize=64)
def pieces(source: int, output: int, align_corners: bool, most: int) -> Pieces:
    """The pieces of an axis, none with more than ``most`` pixels."""
    first, segments = (0, max(source - 1, 1)) if align_corners else (-1, source + 1)
    begins = [segment_begin(node, source, output, align_corners) for node in range(first, first + segments + 1)]
    lengths = {after - begin for begin, after in zip(begins, begins[1:], strict=False)}
    cuts = max(-(-max(lengths) // most), 1)
    cut = {length * (part + 1) // cuts - length * part // cuts for length in lengths for part in range(cuts)}
    return Pieces(segments * cuts, cuts, tuple(sorted(cut)))
