"""ADE20K in the layout of the scene parsing challenge of 2016 (ADEChallengeData2016): 150 classes.

Layout::

    ADEChallengeData2016/
      images/training/ADE_train_00000001.jpg        20,210 images
      images/validation/ADE_val_00000001.jpg        2,000 images
      annotations/training/ADE_train_00000001.png   pixel value = class id, 0 = none of the 150
      annotations/validation/ADE_val_00000001.png

Class 0, "other", takes the place of the background: like VOC's it is learned at the base step and stands for
everything that is not labelled later.
"""

from __future__ import annotations

from pathlib import Path

from ciss_fast.data.dataset import register_dataset
from ciss_fast.data.file_dataset import FileDataset, files_by_stem, paths_of
from ciss_fast.errors import ConfigError, DataError

ADE20K_CLASSES = tuple(
    "other|wall|building|sky|floor|tree|ceiling|road|bed|windowpane|grass|cabinet|sidewalk|person|earth|door|table|"
    "mountain|plant|curtain|chair|car|water|painting|sofa|shelf|house|sea|mirror|rug|field|armchair|seat|fence|desk|"
    "rock|wardrobe|lamp|bathtub|railing|cushion|base|box|column|signboard|chest of drawers|counter|sand|sink|"
    "skyscraper|fireplace|refrigerator|grandstand|path|stairs|runway|case|pool table|pillow|screen door|stairway|"
    "river|bridge|bookcase|blind|coffee table|toilet|flower|book|hill|bench|countertop|stove|palm|kitchen island|"
    "computer|swivel chair|boat|bar|arcade machine|hovel|bus|towel|light|truck|tower|chandelier|awning|streetlight|"
    "booth|television receiver|airplane|dirt track|apparel|pole|land|bannister|escalator|ottoman|bottle|buffet|"
    "poster|stage|van|ship|fountain|conveyer belt|canopy|washer|plaything|swimming pool|stool|barrel|basket|"
    "waterfall|tent|bag|minibike|cradle|oven|ball|food|step|tank|trade name|microwave|pot|animal|bicycle|lake|"
    "dishwasher|screen|blanket|sculpture|hood|sconce|vase|traffic light|tray|ashcan|fan|pier|crt screen|plate|"
    "monitor|bulletin board|shower|radiator|glass|clock|flag".split("|")
)
"""Index = class id: "other" and the names (the first synonym) of the challenge's objectInfo150."""

_FOLDERS = {"train": "training", "val": "validation"}
_IMAGES, _LABELS = "images", "annotations"


@register_dataset("ade20k")
class ADE20KDataset(FileDataset):
    """The images of a split, in the order of their names.

    Args:
        root: the folder that holds images and annotations (ADEChallengeData2016), or its parent.
        split: "train" or "val".

    Raises `DataError` for missing folders, images or label maps.
    """

    def __init__(self, root: Path | None, split: str) -> None:
        if root is None:
            raise ConfigError(
                "data set 'ade20k' needs a root folder: expected the path of ADEChallengeData2016, got none"
            )
        folder = find_ade20k_folder(Path(root))
        image_folder, label_folder = (folder / kind / _FOLDERS[split] for kind in (_IMAGES, _LABELS))
        image_files = files_by_stem(image_folder, [".jpg"], "image")
        if not image_files:
            raise DataError(f"{image_folder}: no images; expected files .jpg")
        label_files = files_by_stem(label_folder, [".png"], "label map")
        ids = sorted(image_files)
        super().__init__(
            root=folder,
            ids=ids,
            image_paths=[image_files[image_id] for image_id in ids],
            label_paths=paths_of(ids, label_files, label_folder, [".png"], "label map", image_folder),
            class_names=ADE20K_CLASSES,
        )


def find_ade20k_folder(root: Path) -> Path:
    """The folder with images/training and annotations/training: ``root`` or its ADEChallengeData2016.

    Raises `DataError` if there is none.
    """
    if not root.is_dir():
        raise DataError(f"{root}: folder missing; expected ADEChallengeData2016 or its parent")
    for folder in (root, root / "ADEChallengeData2016"):
        if all((folder / kind / _FOLDERS["train"]).is_dir() for kind in (_IMAGES, _LABELS)):
            return folder
    raise DataError(
        f"{root}: no folder in the layout of ADEChallengeData2016; expected {_IMAGES}/training, "
        f"{_LABELS}/training and the same with validation"
    )
