"""Sizes of blocks, types of indices and numbers for launches of Triton kernels; needs no triton itself."""

from __future__ import annotations

import struct


def power_of_two_from(n: int) -> int:
    """The smallest power of two that is not smaller than ``n`` (1 for n <= 1)."""
    return 1 << max(n - 1, 0).bit_length()


def power_of_two_up_to(n: int) -> int:
    """The largest power of two that is not larger than ``n`` >= 1."""
    return 1 << (n.bit_length() - 1)


def position_bits(source: int, output: int) -> int:
    """Bits of the integers that `triton_enlargement.source_position` needs for an axis: 32 or 64."""
    return 32 if (2 * output + 1) * source < 2**31 else 64


def two_floats(number: float) -> tuple[float, float]:
    """A number in single precision, in which a kernel gets its arguments, and what it is short of."""
    rounded = struct.unpack("f", struct.pack("f", number))[0]
    return rounded, number - rounded
