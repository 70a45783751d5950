"""Reading images and label maps, with every defect reported in one line that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ciss_fast.errors import DataError

IGNORE = 255
"""Label value of pixels that take no part in training or evaluation."""

# What Pillow is known to raise for damaged files, depending on the format and on where the damage is.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Grey PNGs of 2 or 4 bits are stretched to 0..255 by Pillow; class ids have to be the stored values.
_STRETCH = {"L;2": 85, "L;4": 17}


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The colour image at ``path``, uint8 [H, W, 3], read-only. The file is decoded completely.

    Raises `DataError` if the file is missing, cut off or no image.
    """
    with _opened(path, "image") as image:
        return _decoded(path, "image", image, mode="RGB")


def read_label_map(path: str | os.PathLike[str]) -> np.ndarray:
    """The stored pixel values of an index image at ``path``, uint8 [H, W], read-only.

    Palette images give the palette index, grey images the grey value as stored (1 to 16 bits).
    Raises `DataError` if the file is missing, cut off, of a colour mode, or holds values over 255.
    """
    with _opened(path, "label map") as image:
        if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
            raise DataError(
                f"{path}: label map has mode {image.mode}; expected a palette or single-channel image "
                f"whose pixel values are class ids"
            )
        stretch = _STRETCH.get(_raw_mode(image), 1)
        values = _decoded(path, "label map", image)
    if values.dtype == np.bool_:
        # Pillow's bytes for true are 255, which numpy's own conversion may keep.
        values = (values.view(np.uint8) != 0).astype(np.uint8)
    if values.dtype != np.uint8:
        if values.size and (values.min() < 0 or values.max() > IGNORE):
            worst = values.min() if values.min() < 0 else values.max()
            raise DataError(f"{path}: label map holds the value {worst}; expected class ids from 0 to 255")
        values = values.astype(np.uint8)
    if stretch != 1:
        values = values // np.uint8(stretch)
    values.flags.writeable = False
    return values


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of the image at ``path``, from its header. Raises `DataError` as `read_image`."""
    with _opened(path, "image") as image:
        return image.height, image.width


def check_class_ids(path: str | os.PathLike[str], label: np.ndarray, num_classes: int) -> None:
    """Raise `DataError` with file and value if ``label`` (uint8) holds an id outside the class list."""
    known = np.zeros(256, dtype=bool)
    known[:num_classes] = True
    known[IGNORE] = True
    if not known[label].all():
        value = int(label[~known[label]].min())
        raise DataError(
            f"{path}: label map holds the class id {value}; expected ids from 0 to {num_classes - 1}, "
            f"or {IGNORE} for ignored pixels"
        )


def check_same_size(
    image_path: str | os.PathLike[str],
    image_size: tuple[int, int],
    label_path: str | os.PathLike[str],
    label_size: tuple[int, int],
) -> None:
    """Raise `DataError` if a label map is not of its image's size (sizes as height, width)."""
    if tuple(image_size) != tuple(label_size):
        raise DataError(
            f"{label_path}: label map is {label_size[1]}x{label_size[0]} (width x height); expected "
            f"{image_size[1]}x{image_size[0]}, the size of its image {image_path}"
        )


def _opened(path: str | os.PathLike[str], kind: str) -> Image.Image:
    if Path(path).is_dir():
        raise DataError(f"{path}: expected an image file, got a folder")
    if not Path(path).is_file():
        raise DataError(f"{path}: {kind} missing; expected a readable file")
    try:
        return Image.open(path)
    except _DECODE_ERRORS as error:
        raise DataError(
            f"{path}: {kind} unreadable; expected an image file, got {_one_line(error)}"
        ) from error


def _decoded(
    path: str | os.PathLike[str], kind: str, image: Image.Image, mode: str | None = None
) -> np.ndarray:
    try:
        image.load()
        values = np.asarray(image if mode in (None, image.mode) else image.convert(mode))
    except _DECODE_ERRORS as error:
        raise DataError(
            f"{path}: {kind} damaged; expected {image.width}x{image.height} pixels, got {_one_line(error)}"
        ) from error
    values.flags.writeable = False
    return values


def _raw_mode(image: Image.Image) -> str:
    """How the pixels are packed in the file, for example ``L;4``; empty when the format does not say."""
    if not image.tile:
        return ""
    arguments = image.tile[0][3]
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else ""
    return arguments if isinstance(arguments, str) else ""


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
