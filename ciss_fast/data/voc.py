"""Pascal VOC's folder layout, with or without the additional SBD labels (Hariharan et al., ICCV 2011).

Layouts that are in use, in one folder with ``JPEGImages/ID.jpg``::

    SegmentationClass/ID.png      VOC 2012 as released: 1,464 training images with labels, 1,449 for validation
    SegmentationClassAug/ID.png   with SBD: label maps of all 12,031 images of train_aug and val
    ImageSets/Segmentation/       train.txt, val.txt and, with SBD, train_aug.txt or trainaug.txt: 10,582 images
    ImageSets/SegmentationAug/    a place where some keep these lists
    splits/                       the place where MiB's code keeps them
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ciss_fast.data.dataset import register_dataset
from ciss_fast.data.file_dataset import FileDataset, files_by_stem, paths_of
from ciss_fast.data.lists import read_class_list, read_image_list
from ciss_fast.errors import ConfigError, DataError

VOC_CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)

_IMAGES = "JPEGImages"
_LIST_FOLDERS = (Path("ImageSets", "Segmentation"), Path("ImageSets", "SegmentationAug"), Path("splits"))
_DEFAULT_LISTS = {"train": ("train_aug", "trainaug", "train"), "val": ("val",)}


@register_dataset("voc")
class VOCDataset(FileDataset):
    """Images and label maps of a list, in the layouts described at the top of this module.

    Args:
        root: the folder that holds JPEGImages (VOC2012), or one of its two parents.
        split: "train" or "val".
        labels: name of the label folder. Default: SegmentationClassAug where it exists, else
            SegmentationClass.
        train_list, val_list: name of each split's list file without ".txt". Default: for training the first that
            exists of train_aug, trainaug and train; val. A line may also read
            "/JPEGImages/ID.jpg /SegmentationClassAug/ID.png".

    Class names are VOC's 21, or those of ``classes.txt`` (lines "id name") in the same folder.
    Raises `DataError` for missing folders, lists, images or label maps.
    """

    def __init__(
        self,
        root: Path | None,
        split: str,
        *,
        labels: str | None = None,
        train_list: str | None = None,
        val_list: str | None = None,
    ) -> None:
        if root is None:
            raise ConfigError("data set 'voc' needs a root folder: expected the path of VOC2012, got none")
        for option, value in (("labels", labels), ("train_list", train_list), ("val_list", val_list)):
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"data set 'voc': {option} is {value!r}; expected a name")
        folder = find_voc_folder(Path(root))
        if labels is None:
            labels = (
                "SegmentationClassAug" if (folder / "SegmentationClassAug").is_dir() else "SegmentationClass"
            )
        given = train_list if split == "train" else val_list
        list_path = _find_list(folder, _DEFAULT_LISTS[split] if given is None else (given,))
        ids = read_image_list(list_path, lambda entry: Path(entry).stem if "/" in entry else entry)
        class_file = folder / "classes.txt"
        class_names = read_class_list(class_file) if class_file.is_file() else list(VOC_CLASSES)
        image_files = files_by_stem(folder / _IMAGES, [".jpg"], "image")
        label_files = files_by_stem(folder / labels, [".png"], "label map")
        super().__init__(
            root=folder,
            ids=ids,
            image_paths=paths_of(ids, image_files, folder / _IMAGES, [".jpg"], "image", list_path),
            label_paths=paths_of(ids, label_files, folder / labels, [".png"], "label map", list_path),
            class_names=class_names,
        )


def find_voc_folder(root: Path) -> Path:
    """The folder with JPEGImages and lists: ``root``, or the only one up to two levels below it.

    Raises `DataError` if there is none, or more than one and none of them is named VOC2012.
    """
    if not root.is_dir():
        raise DataError(f"{root}: folder missing; expected the VOC2012 folder or a parent of it")
    if _is_voc_folder(root):
        return root
    for pattern in ("*", "*/*"):
        found = sorted(folder for folder in root.glob(pattern) if _is_voc_folder(folder))
        preferred = [folder for folder in found if folder.name == "VOC2012"]
        if len(preferred) == 1:
            return preferred[0]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(folder.relative_to(root).as_posix() for folder in found)
            raise DataError(
                f"{root}: expected one folder in VOC layout, got several: {names}; name one of them"
            )
    raise DataError(
        f"{root}: no folder in VOC layout; expected {_IMAGES}/ and {_LIST_FOLDERS[0].as_posix()}/ in it or up to "
        f"two levels below"
    )


def _is_voc_folder(folder: Path) -> bool:
    return (folder / _IMAGES).is_dir() and any((folder / lists).is_dir() for lists in _LIST_FOLDERS)


def _find_list(folder: Path, names: Sequence[str]) -> Path:
    """The first of the lists that exists, an earlier name before an earlier place."""
    for name in names:
        for place in _LIST_FOLDERS:
            path = folder / place / f"{name}.txt"
            if path.is_file():
                return path
    expected = " or ".join(f"{name}.txt" for name in names)
    raise DataError(f"{folder / _LIST_FOLDERS[0] / names[-1]}.txt: image list missing; expected {expected} there")
