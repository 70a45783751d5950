"""The image sets of the comparison, unpacked and described for ``ciss_fast``'s data sets."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.data import build_dataset
from ciss_fast.errors import DataError

WEIGHTS = "mobilenet_v2_imagenet.pth"
BASE_ONLY = "-base-only"
"""Behind a data set's name: the training images of its first `BASE_CLASSES` classes alone, a fifth of them held out."""
BASE_CLASSES, HELD_OUT = 15, 5
_MSRC = """# MSRC-21 with its unlabelled pixels as background
images = "JPEGImages"
labels = "SegmentationClassVoid0"
train = "ImageSets/Segmentation/train"
val = "ImageSets/Segmentation/val"
"""


def prepare(name: str, source: Path, output: Path) -> dict[str, Any]:
    """Settings for the data set ``name`` of the folder ``source``, which is unpacked below ``output`` if need be.

    Raises `DataError` where ``source`` lacks it.
    """
    if name == "shapes":
        return {}
    if name.endswith(BASE_ONLY):
        return _prepare_base_only(name, source, output)
    archive, folder, weights = source / f"{name}.tar", output / "data" / name, output / "data" / WEIGHTS
    for needed in (archive, source / WEIGHTS):
        if not needed.is_file():
            raise DataError(f"{needed}: not found; --data must be the folder that has it")
    complete = folder / ".complete"
    if not complete.exists():
        with tarfile.open(archive) as files:
            files.extractall(folder.parent, filter="data")
        if name.startswith("msrc"):
            atomic_write_text(folder / "dataset.toml", _MSRC)
        shutil.copyfile(source / WEIGHTS, weights)
        complete.touch()
    dataset = "folder" if name.startswith("msrc") else "voc"
    return {"dataset": dataset, "data_root": str(folder), "weights": str(weights)}


def _prepare_base_only(name: str, source: Path, output: Path) -> dict[str, Any]:
    """Training images that show a base class, every fifth of them to test with; other classes are 255."""
    whole = prepare(name.removesuffix(BASE_ONLY), source, output)
    folder = output / "data" / name
    settings = {**whole, "dataset": "folder", "data_root": str(folder)}
    if (folder / ".complete").exists():
        return settings
    data = build_dataset(whole["dataset"], Path(whole["data_root"]), "train")
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for index, image_id in enumerate(data.ids):
        label = data.load_label(index)
        label = np.where(label > BASE_CLASSES, 255, label).astype(np.uint8)
        if not ((label > 0) & (label < 255)).any():
            continue
        Image.fromarray(label).save(folder / "labels" / f"{image_id}.png")
        shown = len(lists["train"]) + len(lists["val"])
        lists["val" if shown % HELD_OUT == HELD_OUT - 1 else "train"].append(image_id)
    for split, ids in lists.items():
        atomic_write_text(folder / f"{split}.txt", "\n".join(ids) + "\n")
    names = data.class_names[: BASE_CLASSES + 1]
    atomic_write_text(folder / "classes.txt", "".join(f"{i} {class_name}\n" for i, class_name in enumerate(names)))
    images = Path("..") / name.removesuffix(BASE_ONLY) / "JPEGImages"
    atomic_write_text(folder / "dataset.toml", f'images = "{images.as_posix()}"\n')
    (folder / ".complete").touch()
    return settings
