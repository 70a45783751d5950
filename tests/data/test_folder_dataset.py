"""Folders of images and index label maps."""

import numpy as np
import pytest

from ciss_fast.data import build_dataset
from ciss_fast.errors import ConfigError, DataError

CLASSES = "0 background\n1 cat\n2 dog\n"


@pytest.fixture
def listed_folder(tmp_path, helpers):
    """Two training images and one for validation, named in lists; the suffixes differ on purpose."""
    helpers.image(tmp_path / "images" / "b.jpg", seed=1)
    helpers.image(tmp_path / "images" / "sub" / "a.png", seed=2)
    helpers.image(tmp_path / "images" / "c.JPEG", seed=3)
    for name, values in (("b", (0, 1)), ("sub/a", (2, 1)), ("c", (0, 2))):
        helpers.label(tmp_path / "labels" / f"{name}.png", helpers.halves(*values))
    (tmp_path / "classes.txt").write_text(CLASSES)
    (tmp_path / "train.txt").write_text("b.jpg\nsub/a\n")
    (tmp_path / "val.txt").write_text("c\n")
    return tmp_path


def test_lists(listed_folder, helpers):
    train, val = build_dataset("folder", listed_folder), build_dataset("folder", listed_folder, "val")
    assert train.ids == ["b", "sub/a"]
    assert val.ids == ["c"]
    assert train.class_names == ["background", "cat", "dog"]
    assert np.array_equal(train.load(1)[1], helpers.halves(2, 1))
    assert val.load(0)[0].shape == (24, 36, 3)


def test_split_folders_and_description(tmp_path, helpers):
    for split, names in (("training", ["z", "a"]), ("validation", ["q"])):
        for name in names:
            helpers.image(tmp_path / "images" / split / f"{name}.jpg")
            helpers.label(tmp_path / "annotations" / split / f"{name}.png", helpers.halves(0, 1))
    (tmp_path / "dataset.toml").write_text(
        'labels = "annotations"\ntrain = "training"\nval = "validation"\nclasses = ["other", "wall"]\n'
    )
    train, val = build_dataset("folder", tmp_path), build_dataset("folder", tmp_path, "val")
    assert train.ids == ["a", "z"]
    assert val.ids == ["q"]
    assert val.class_names == ["other", "wall"]
    assert np.array_equal(val.load(0)[1], helpers.halves(0, 1))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("labels = ", ["TOML"]),
        ("labels = 3", ["'labels' is 3", "folder or list name"]),
        ("label = 'x'", ["'label'", "images, labels, train, val or classes"]),
        ("classes = 'x'", ["'classes'", "list of names"]),
        ("classes = ['background', 'cat', 'cat']", ["'cat' repeats"]),
    ],
)
def test_bad_description(listed_folder, one_line, text, parts):
    (listed_folder / "dataset.toml").write_text(text)
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, listed_folder / "dataset.toml", *parts)


def test_missing_parts(listed_folder, one_line):
    (listed_folder / "labels" / "sub" / "a.png").unlink()
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, listed_folder / "labels" / "sub" / "a.png", "missing", "train.txt")
    (listed_folder / "train.txt").unlink()
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, listed_folder, "'train'", "train.txt", listed_folder / "images" / "train")
    (listed_folder / "images" / "train").mkdir()
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, listed_folder / "images" / "train", "no images")
    (listed_folder / "classes.txt").unlink()
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, listed_folder / "classes.txt", "missing")
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder / "gone")
    one_line(caught.value, listed_folder / "gone", "missing")
    with pytest.raises(ConfigError) as caught:
        build_dataset("folder")
    one_line(caught.value, "root")


def test_image_folder_elsewhere(listed_folder, tmp_path_factory, one_line):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (listed_folder / "train.txt").unlink()
    (listed_folder / "dataset.toml").write_text(f'images = "{elsewhere.as_posix()}"\n')
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, "'train'", elsewhere / "train")


def test_the_same_image_in_two_spellings(listed_folder, one_line):
    (listed_folder / "train.txt").write_text("b\nb.jpg\n")
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, listed_folder / "train.txt", "'b' on line 2", "line 1")


def test_two_files_for_one_id(listed_folder, helpers, one_line):
    helpers.image(listed_folder / "images" / "b.png")
    with pytest.raises(DataError) as caught:
        build_dataset("folder", listed_folder)
    one_line(caught.value, listed_folder / "images" / "b.png", listed_folder / "images" / "b.jpg", "'b'")
