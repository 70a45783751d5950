"""How one axis of the label map reads the logits' axis: what a launch has to know before (see csrc/core/axis.h)."""

from __future__ import annotations

from functools import lru_cache


def first_pixel(node: int, source: int, output: int, align_corners: bool) -> int:
    """The first output pixel whose left node is ``node`` or a later one; ``output`` where there is none."""
    if node <= 0:
        return 0
    if node >= source:
        return output
    if align_corners:
        numerator, denominator = node * max(output - 1, 1), source - 1
    else:
        numerator, denominator = (2 * node + 1) * output - source, 2 * source
    return min(-(-max(numerator, 0) // denominator), output)


@lru_cache(maxsize=64)
def longest_reach(source: int, output: int, align_corners: bool) -> int:
    """The largest number of output pixels between one node's left and right neighbours."""
    starts = [first_pixel(node, source, output, align_corners) for node in range(-1, source + 1)]
    return max(starts[k + 2] - starts[k] for k in range(source))
