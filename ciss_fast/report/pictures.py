"""Images inside a page, as data addresses."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from ciss_fast.palette import index_image

LONGEST_SIDE = 320


def photograph(pixels: np.ndarray) -> str:
    """A ``data:`` address of uint8 [H, W, 3], as JPEG, made smaller if need be."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BILINEAR)
    return _address(picture, "jpeg", quality=82)


def label_map(class_ids: np.ndarray) -> str:
    """A ``data:`` address of class ids uint8 [H, W] in the palette's colours, as PNG, made smaller if need be."""
    picture = index_image(class_ids)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.NEAREST)
    return _address(picture, "png", optimize=True)


def _address(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
