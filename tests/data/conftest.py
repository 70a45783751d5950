"""A small data set on disk that the tests damage in various ways."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TRAIN_IDS = ["2007_a", "2007_b", "2007_c"]
VAL_IDS = ["2007_d"]
# Classes of each image's label map: value of the left half, value of the right half; a column of 255 between.
HALVES = {"2007_a": (0, 3), "2007_b": (20, 1), "2007_c": (0, 0), "2007_d": (3, 20)}


def write_image(path: Path, size: tuple[int, int] = (24, 36), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def write_label(path: Path, label: np.ndarray, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label)
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def halves(left: int, right: int, size: tuple[int, int] = (24, 36)) -> np.ndarray:
    label = np.full(size, left, dtype=np.uint8)
    label[:, size[1] // 2 :] = right
    label[:, size[1] // 2] = 255
    return label


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """``VOCdevkit/VOC2012`` with three training images and one for validation, 36x24 pixels."""
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for seed, (image_id, values) in enumerate(HALVES.items()):
        write_image(folder / "JPEGImages" / f"{image_id}.jpg", seed=seed)
        write_label(folder / "SegmentationClass" / f"{image_id}.png", halves(*values))
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(TRAIN_IDS) + "\n")
    (lists / "val.txt").write_text("\n".join(VAL_IDS) + "\n")
    return folder


@pytest.fixture
def helpers():
    """The writers above, for tests that make files of their own."""

    class Helpers:
        image = staticmethod(write_image)
        label = staticmethod(write_label)
        halves = staticmethod(halves)

    return Helpers


@pytest.fixture
def one_line():
    """Check that an error is one line and holds each of the given parts."""

    def check(error: BaseException, *parts: object) -> None:
        message = str(error)
        assert "\n" not in message
        for part in parts:
            assert str(part) in message

    return check
