"""A data set made of image files and label map files: what the VOC and folder layouts have in common."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ciss_fast.data.image_files import check_class_ids, check_same_size, read_image, read_label_map, read_size
from ciss_fast.errors import DataError


class FileDataset:
    """Images and index label maps by path.

    Args:
        root: folder the data lies in; the class-presence cache is kept there.
        ids: image ids, in list order.
        image_paths, label_paths: one file each per id.
        class_names: index = class id, 0 = background.

    Every label map that is loaded is checked: decodes completely, is of its image's size, holds only ids of
    the class list and 255; `DataError` otherwise.
    """

    def __init__(
        self,
        root: Path,
        ids: Sequence[str],
        image_paths: Sequence[str],
        label_paths: Sequence[str],
        class_names: Sequence[str],
    ) -> None:
        self.root: Path | None = root
        self.ids = list(ids)
        self.class_names = list(class_names)
        self._image_paths = list(image_paths)
        self._label_paths = list(label_paths)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the classes, the ids in order, and each label map's path below the root."""
        digest = hashlib.sha256()
        for name in self.class_names:
            digest.update(f"class\0{name}\n".encode())
        for image_id, label_path in zip(self.ids, self._label_paths, strict=True):
            digest.update(f"{image_id}\0{os.path.relpath(label_path, self.root)}\n".encode())
        return digest.hexdigest()

    def label_path(self, index: int) -> str:
        """The file of a label map."""
        return self._label_paths[index]

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] and label map uint8 [H, W], both read-only."""
        image = read_image(self._image_paths[index])
        return image, self._checked_label(index, image.shape[:2])

    def load_label(self, index: int) -> np.ndarray:
        """Label map uint8 [H, W]; of the image only the header is read, to compare the sizes."""
        return self._checked_label(index, self.image_size(index))

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width, from the image's header."""
        return read_size(self._image_paths[index])

    def image_bytes(self, index: int) -> int:
        """Size of the image's file."""
        return os.path.getsize(self._image_paths[index])

    def _checked_label(self, index: int, image_size: tuple[int, int]) -> np.ndarray:
        path = self._label_paths[index]
        label = read_label_map(path)
        check_same_size(self._image_paths[index], image_size, path, label.shape)
        check_class_ids(path, label, len(self.class_names))
        return label


def files_by_stem(folder: Path, suffixes: Sequence[str], kind: str) -> dict[str, str]:
    """Relative path without suffix → full path, for all files under ``folder`` with one of ``suffixes``.

    Raises `DataError` if the folder is missing or two files differ in their suffix only.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: folder of {kind}s missing; expected files {', '.join(suffixes)}")
    found: dict[str, str] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        relative_parent = os.path.relpath(parent, folder)
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in suffixes or name.startswith("."):
                continue
            key = stem if relative_parent == os.curdir else Path(relative_parent, stem).as_posix()
            path = os.path.join(parent, name)
            if key in found:
                raise DataError(f"{path}: same id as {found[key]}; expected one {kind} for {key!r}")
            found[key] = path
    return found


def paths_of(
    ids: Sequence[str],
    files: dict[str, str],
    folder: Path,
    suffixes: Sequence[str],
    kind: str,
    listed_in: Path,
) -> list[str]:
    """The file of every id; raises `DataError` naming the first one missing and where it is listed."""
    for image_id in ids:
        if image_id not in files:
            expected = folder / f"{image_id}{suffixes[0]}"
            raise DataError(f"{expected}: {kind} missing; expected it because {listed_in} lists {image_id!r}")
    return [files[image_id] for image_id in ids]
