"""The image sets of the comparison, unpacked and described for ``ciss_fast``'s data sets."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.errors import DataError

WEIGHTS = "mobilenet_v2_imagenet.pth"
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
