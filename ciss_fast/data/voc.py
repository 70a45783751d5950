"""Pascal VOC's folder layout, with or without the additional SBD labels."""

from __future__ import annotations

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
_LISTS = Path("ImageSets", "Segmentation")


@register_dataset("voc")
class VOCDataset(FileDataset):
    """``JPEGImages/ID.jpg``, ``SegmentationClass[Aug]/ID.png`` and
    ``ImageSets/Segmentation/{train,val}.txt``.

    Args:
        root: the folder that holds JPEGImages (VOC2012), or one of its two parents.
        split: "train" or "val".
        labels: name of the label folder. Default: SegmentationClassAug where it exists, else
            SegmentationClass.
        image_list: name of the list file without ".txt". Default: for training train_aug where it exists,
            else train; val otherwise. A line may also read "/JPEGImages/ID.jpg /SegmentationClassAug/ID.png".

    Class names are VOC's 21, or those of ``classes.txt`` (lines "id name") in the same folder.
    Raises `DataError` for missing folders, lists, images or label maps.
    """

    def __init__(
        self, root: Path | None, split: str, *, labels: str | None = None, image_list: str | None = None
    ) -> None:
        if root is None:
            raise ConfigError("data set 'voc' needs a root folder: expected the path of VOC2012, got none")
        for option, value in (("labels", labels), ("image_list", image_list)):
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"data set 'voc': {option} is {value!r}; expected a name")
        folder = find_voc_folder(Path(root))
        if labels is None:
            labels = (
                "SegmentationClassAug" if (folder / "SegmentationClassAug").is_dir() else "SegmentationClass"
            )
        if image_list is None:
            image_list = split
            if split == "train" and (folder / _LISTS / "train_aug.txt").is_file():
                image_list = "train_aug"
        list_path = folder / _LISTS / f"{image_list}.txt"
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
    """The folder with JPEGImages and ImageSets/Segmentation: ``root``, or the only one up to two levels below
    it.

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
        f"{root}: no folder in VOC layout; expected {_IMAGES}/ and {_LISTS.as_posix()}/ in it or up to two "
        f"levels below"
    )


def _is_voc_folder(folder: Path) -> bool:
    return (folder / _IMAGES).is_dir() and (folder / _LISTS).is_dir()
