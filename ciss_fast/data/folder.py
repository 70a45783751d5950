"""Any folder of images and index label maps with a class list.

Layout (the names in square brackets can be changed in ``dataset.toml``)::

    root/
      classes.txt              lines "id name", ids from 0 (background); or the list `classes` in dataset.toml
      dataset.toml             optional, see below
      [images]/ID.jpg          .jpg .jpeg .png .bmp .tif .tiff .webp
      [labels]/ID.png          .png .bmp .tif .tiff: pixel value = class id, 255 = ignored
      [train].txt, [val].txt   image ids, one a line

Without list files, the splits are sub-folders: ``[images]/[train]/ID.jpg`` with ``[labels]/[train]/ID.png``.
``dataset.toml``, here for ADEChallengeData2016::

    images = "images"
    labels = "annotations"
    train = "training"
    val = "validation"
    classes = ["other", "wall", "building"]        # and so on; leave out to use classes.txt
"""

from __future__ import annotations

import sys
from pathlib import Path

from ciss_fast.data.dataset import register_dataset
from ciss_fast.data.file_dataset import FileDataset, files_by_stem, paths_of
from ciss_fast.data.lists import check_class_names, read_class_list, read_image_list
from ciss_fast.errors import ConfigError, DataError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
SETTINGS = {"images": "images", "labels": "labels", "train": "train", "val": "val"}


@register_dataset("folder")
class FolderDataset(FileDataset):
    """Images and index label maps in the layout described at the top of this module.

    Args:
        root: the folder with ``classes.txt`` or ``dataset.toml``.
        split: "train" or "val".

    Raises `DataError` for missing folders, lists, images or label maps, and for a damaged ``dataset.toml``.
    """

    def __init__(self, root: Path | None, split: str) -> None:
        if root is None:
            raise ConfigError("data set 'folder' needs a root folder: expected its path, got none")
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"{root}: folder missing; expected a data set with classes.txt or dataset.toml")
        settings, class_names = read_description(root)
        image_folder, label_folder = root / settings["images"], root / settings["labels"]
        list_path = root / f"{settings[split]}.txt"
        if list_path.is_file():
            ids = read_image_list(list_path, _without_suffix)
            source = list_path
            image_files = files_by_stem(image_folder, IMAGE_SUFFIXES, "image")
        else:
            image_folder, label_folder = image_folder / settings[split], label_folder / settings[split]
            if not image_folder.is_dir():
                raise DataError(
                    f"{root}: no images for split {split!r}; expected the list {list_path.name} or "
                    f"the folder {image_folder}"
                )
            image_files = files_by_stem(image_folder, IMAGE_SUFFIXES, "image")
            ids = sorted(image_files)
            source = image_folder
            if not ids:
                raise DataError(f"{image_folder}: no images; expected files {', '.join(IMAGE_SUFFIXES)}")
        label_files = files_by_stem(label_folder, LABEL_SUFFIXES, "label map")
        super().__init__(
            root=root,
            ids=ids,
            image_paths=paths_of(ids, image_files, image_folder, IMAGE_SUFFIXES, "image", source),
            label_paths=paths_of(ids, label_files, label_folder, LABEL_SUFFIXES, "label map", source),
            class_names=class_names,
        )


def read_description(root: Path) -> tuple[dict[str, str], list[str]]:
    """Folder and split names (keys of `SETTINGS`) and the class names of the data set in ``root``."""
    settings = dict(SETTINGS)
    class_names: list[str] | None = None
    path = root / "dataset.toml"
    if path.is_file():
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: unreadable; expected a TOML file, got {reason}") from error
        for key, value in given.items():
            if key == "classes":
                if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                    raise DataError(
                        f"{path}: 'classes' is {value!r}; expected a list of names, background first"
                    )
                class_names = check_class_names(path, value)
            elif key in settings:
                if not isinstance(value, str):
                    raise DataError(f"{path}: {key!r} is {value!r}; expected a folder or list name")
                settings[key] = value.removesuffix(".txt")
            else:
                raise DataError(f"{path}: unknown key {key!r}; expected {', '.join(settings)} or classes")
    if class_names is None:
        class_names = read_class_list(root / "classes.txt")
    return settings, class_names


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_SUFFIXES else path.as_posix()
