"""Runs small enough for a test: 32-pixel shapes, two iterations a step; and a part of Pascal VOC."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciss_fast.engine.config import Config
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.run import train

TINY = {
    "task": "6-3",
    "data_option": {"image_size_px": 32, "train_images": 40, "val_images": 8},
    "crop_size": 32,
    "batch_size": 8,
    "backbone": "mobilenet_v2",
    "weights": None,
    "head_channels": 8,
    "epochs_base": 1,
    "epochs_later": 1,
    "log_every": 1,
    "previews": 2,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def tiny_config():
    """A function from settings to the configuration of a tiny run with them."""

    def make(**settings: object) -> Config:
        return Config().with_settings({**TINY, **settings})

    return make


@pytest.fixture(scope="session")
def tiny_train(tiny_config):
    """A function from a folder and settings to the folder of a finished tiny run."""

    def run(output: Path, **settings: object) -> Path:
        return train(tiny_config(output=str(output), **settings), Reporter(quiet=True))

    return run


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Drawing them takes as long as the training of a tiny run. The runs below, which tests share, have some."""
    for name in ("draw_curves", "draw_predictions"):
        monkeypatch.setattr(f"ciss_fast.engine.run.{name}", lambda path, *_: path)


@pytest.fixture(scope="session")
def alife_run(tmp_path_factory, tiny_train) -> Path:
    """A finished ALIFE run. Tests read it; one that changes files takes a copy."""
    return tiny_train(tmp_path_factory.mktemp("runs") / "alife", method="alife")


@pytest.fixture(scope="session")
def dkd_run(tmp_path_factory, tiny_train) -> Path:
    """A finished run of DKD; as `alife_run`."""
    return tiny_train(tmp_path_factory.mktemp("runs") / "dkd", method="dkd")


@pytest.fixture(scope="session")
def voc_part(shared_file, tmp_path_factory) -> Path:
    """Every third training image and every fiftieth test image of the part."""
    folder = tmp_path_factory.mktemp("voc")
    with tarfile.open(shared_file("data/voc12part_bal320.tar")) as archive:
        archive.extractall(folder, filter="data")
    (lists,) = folder.glob("**/ImageSets/Segmentation")
    for name, every in (("train", 3), ("val", 50)):
        path = lists / f"{name}.txt"
        path.write_text("\n".join(path.read_text().split()[::every]) + "\n")
    return folder


@pytest.fixture
def voc_of_squares(tmp_path) -> Path:
    """A folder in VOC's layout with an image of every class in both lists."""
    root = tmp_path / "voc"
    lists = root / "ImageSets" / "Segmentation"
    for folder in (lists, root / "JPEGImages", root / "SegmentationClass"):
        folder.mkdir(parents=True)
    for class_id in range(1, 21):
        pixels = np.full((8, 8, 3), class_id, dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{class_id}.jpg")
        Image.fromarray(pixels[..., 0].copy()).save(root / "SegmentationClass" / f"{class_id}.png")
    for name in ("train", "val"):
        (lists / f"{name}.txt").write_text("\n".join(str(class_id) for class_id in range(1, 21)))
    return root
