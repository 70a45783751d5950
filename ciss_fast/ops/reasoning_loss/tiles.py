"""Feature maps cut into tiles, and the matrix products with a tile's pixels, whichever way they lie in memory.

All products write into memory that is there already: autocast, which would round their operands, leaves such calls
alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# A tile's scores stay in the caches, as its features do where they are converted, and its products are long enough to
# run at full speed.
SCORES_PER_TILE = FEATURES_PER_TILE = 2**18
FEWEST_PIXELS, MOST_PIXELS = 512, 4096

# Sums over more pixels are cut: a long one torch's products may add up in another order for another number of threads.
PIXELS_PER_SUM = 512


class Tile(NamedTuple):
    """Pixels of some images: a part of one, or all pixels of several."""

    images: slice
    pixels: slice

    @property
    def size(self) -> int:
        """Number of pixels."""
        return (self.images.stop - self.images.start) * (self.pixels.stop - self.pixels.start)


def spans(total: int, size: int) -> list[slice]:
    """0 ... ``total`` in consecutive parts, as equal as possible, of about ``size`` (at most one and a half times)."""
    count = max(1, round(total / size))
    bounds = [total * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False)]


def tiles(flat_maps: Tensor, scores_per_pixel: int, converted: bool) -> list[Tile]:
    """Tiles that cover maps [B, D, h * w]; ``converted``: they are read as another type."""
    batch, channels, pixels = flat_maps.shape
    if batch * pixels == 0:
        return []
    size = min(SCORES_PER_TILE // scores_per_pixel, MOST_PIXELS)
    if converted:
        size = min(FEATURES_PER_TILE // channels, size)
    size = max(size, FEWEST_PIXELS)
    if pixels > size:
        images = [slice(image, image + 1) for image in range(batch)]
        return [Tile(image, part) for image in images for part in spans(pixels, size)]
    return [Tile(images, slice(0, pixels)) for images in spans(batch, size // pixels)]


def _part(flat_maps: Tensor, tile: Tile) -> Tensor:
    """The tile of maps [B, D, h * w], a view."""
    images, pixels = tile
    part = flat_maps.narrow(0, images.start, images.stop - images.start)
    return part.narrow(2, pixels.start, pixels.stop - pixels.start)


class PixelRows:
    """The pixels of a tile as the rows of a matrix [pixels, D], as channels-last maps have them.

    Several images of another layout are copied together, which pays for small ones.
    """

    @staticmethod
    def of(flat_maps: Tensor, tile: Tile) -> Tensor:
        """The tile of maps [B, D, h * w]; a view unless it has to be copied."""
        return _part(flat_maps, tile).transpose(1, 2).reshape(tile.size, -1)

    @staticmethod
    def run_length(tile: Tile, classes: int) -> int:
        """Number of neighbouring scores that belong to the same term."""
        return classes

    @staticmethod
    def scores(features: Tensor, parts: Tensor, room: Tensor) -> Tensor:
        """[pixels, K] from features [pixels, D] and ``parts`` [K, D], in the first elements of ``room``."""
        size = features.shape[0], parts.shape[0]
        return torch.mm(features, parts.t(), out=room[: size[0] * size[1]].view(size))

    @staticmethod
    def write_feature_gradient(scores: Tensor, parts: Tensor, flat_maps: Tensor, tile: Tile) -> None:
        """The tile of ``flat_maps`` becomes the gradient on the features; ``scores`` is that on the scores."""
        target = _part(flat_maps, tile).transpose(1, 2)
        matrix = target.reshape(tile.size, -1)
        torch.mm(scores, parts, out=matrix)
        if matrix.data_ptr() != target.data_ptr():
            target.copy_(matrix.view(target.shape))

    @staticmethod
    def add_weight_gradient(scores: Tensor, features: Tensor, gradient: Tensor) -> None:
        """Add the tile's part to ``gradient`` [K, D]; ``scores`` is the gradient on the scores."""
        for part in spans(len(scores), PIXELS_PER_SUM):
            torch.addmm(gradient, scores[part].t(), features[part], out=gradient)


class PixelColumns:
    """The pixels of each image of a tile as the columns of a matrix, [images, D, pixels], as contiguous maps have them.

    The functions are those of `PixelRows`; scores are [images, K, pixels].
    """

    @staticmethod
    def of(flat_maps: Tensor, tile: Tile) -> Tensor:
        return _part(flat_maps, tile)

    @staticmethod
    def run_length(tile: Tile, classes: int) -> int:
        return classes * (tile.pixels.stop - tile.pixels.start)

    @staticmethod
    def scores(features: Tensor, parts: Tensor, room: Tensor) -> Tensor:
        size = features.shape[0], parts.shape[0], features.shape[2]
        out = room[: size[0] * size[1] * size[2]].view(size)
        return torch.bmm(parts.expand(size[0], -1, -1), features, out=out)

    @staticmethod
    def write_feature_gradient(scores: Tensor, parts: Tensor, flat_maps: Tensor, tile: Tile) -> None:
        torch.bmm(parts.t().expand(len(scores), -1, -1), scores, out=PixelColumns.of(flat_maps, tile))

    @staticmethod
    def add_weight_gradient(scores: Tensor, features: Tensor, gradient: Tensor) -> None:
        for part in spans(scores.shape[2], PIXELS_PER_SUM):
            torch.addbmm(gradient, scores[:, :, part], features[:, :, part].transpose(1, 2), out=gradient)


def arrangement(flat_maps: Tensor) -> type[PixelRows] | type[PixelColumns]:
    """The one of the two that reads most maps [B, D, h * w] like these without copying."""
    small = flat_maps.shape[2] < FEWEST_PIXELS
    return PixelRows if small or flat_maps.stride(1) == 1 else PixelColumns
