"""The colours of class ids: Pascal VOC's, for any number of classes."""

from __future__ import annotations

import numpy as np
from PIL import Image

IGNORED_COLOUR = (224, 224, 192)
"""What Pascal VOC paints pixels of label 255 with."""


def class_palette() -> np.ndarray:
    """The colours of Pascal VOC's label maps, uint8 [256, 3]: the bits of the id, spread over R, G and B."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def index_image(class_ids: np.ndarray) -> Image.Image:
    """A palette image whose pixel values are the class ids, uint8 [H, W]."""
    picture = Image.fromarray(np.ascontiguousarray(class_ids))
    palette = class_palette()
    palette[255] = IGNORED_COLOUR
    picture.putpalette(palette.tobytes())
    return picture
