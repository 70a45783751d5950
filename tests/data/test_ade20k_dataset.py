"""ADE20K in the layout of ADEChallengeData2016."""

import numpy as np
import pytest

from ciss_fast.data import Task, build_dataset, class_presence, evaluation_label_table, training_label_table
from ciss_fast.data.ade20k import ADE20K_CLASSES
from ciss_fast.errors import ConfigError, DataError

HALVES = {"training": {"ADE_train_2": (0, 150), "ADE_train_1": (101, 3)}, "validation": {"ADE_val_1": (51, 0)}}


@pytest.fixture
def ade_folder(tmp_path, helpers):
    folder = tmp_path / "ADEChallengeData2016"
    for split, images in HALVES.items():
        for name, values in images.items():
            helpers.image(folder / "images" / split / f"{name}.jpg")
            helpers.label(folder / "annotations" / split / f"{name}.png", helpers.halves(*values), palette=False)
    (folder / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n")
    return folder


def test_classes():
    assert len(ADE20K_CLASSES) == len(set(ADE20K_CLASSES)) == 151
    places = {0: "other", 1: "wall", 13: "person", 51: "refrigerator", 100: "buffet", 101: "poster", 150: "flag"}
    for class_id, name in places.items():
        # objectInfo150 has buffet at 100 and poster at 101, the border of the tasks with 100 base classes.
        assert ADE20K_CLASSES[class_id] == name


def test_splits_and_content(ade_folder, helpers):
    for root in (ade_folder, ade_folder.parent):
        train, val = build_dataset("ade20k", root), build_dataset("ade20k", root, "val")
        assert train.root == ade_folder
        assert train.ids == ["ADE_train_1", "ADE_train_2"]
        assert val.ids == ["ADE_val_1"]
        assert train.class_names == list(ADE20K_CLASSES)
        assert np.array_equal(train.load(1)[1], helpers.halves(0, 150))
    presence = class_presence(train)
    assert [row.nonzero()[0].tolist() for row in presence] == [[3, 101], [0, 150]]


def test_labels_of_its_tasks(ade_folder):
    task = Task.parse("100-50", class_names=build_dataset("ade20k", ade_folder).class_names)
    assert task.classes_per_step == [101, 50]
    table = training_label_table(task, 1)
    assert table[[0, 3, 101, 150, 255]].tolist() == [0, 0, 101, 150, 255]
    assert evaluation_label_table(task, 0)[[0, 3, 101, 150]].tolist() == [0, 3, 0, 0]
    assert evaluation_label_table(task, 0, "ignore")[[0, 3, 101, 150]].tolist() == [0, 3, 255, 255]
    table = evaluation_label_table(task, 0, "ignore", ignore_background=True)
    assert table[[0, 3, 101, 150]].tolist() == [255, 3, 255, 255]


@pytest.mark.parametrize(
    ("broken", "parts"),
    [
        ("annotations/training/ADE_train_1.png", ["label map missing", "images/training", "ADE_train_1"]),
        ("annotations/training", ["no folder in the layout", "images/training", "annotations/training"]),
        ("images/training", ["no folder in the layout"]),
    ],
)
def test_missing_parts_of_the_training_data(ade_folder, one_line, broken, parts):
    (ade_folder / broken).rename(ade_folder.parent / "elsewhere")
    with pytest.raises(DataError) as caught:
        build_dataset("ade20k", ade_folder)
    one_line(caught.value, ade_folder, *parts)


def test_other_layouts(ade_folder, tmp_path, one_line):
    (ade_folder / "images" / "validation").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        build_dataset("ade20k", ade_folder, "val")
    one_line(caught.value, ade_folder / "images" / "validation", "missing")
    (ade_folder / "images" / "validation").mkdir()
    with pytest.raises(DataError) as caught:
        build_dataset("ade20k", ade_folder, "val")
    one_line(caught.value, ade_folder / "images" / "validation", "no images")
    for root in (tmp_path / "gone", tmp_path / "elsewhere"):
        with pytest.raises(DataError) as caught:
            build_dataset("ade20k", root)
        one_line(caught.value, root, "ADEChallengeData2016")
    with pytest.raises(ConfigError) as caught:
        build_dataset("ade20k")
    one_line(caught.value, "ade20k", "ADEChallengeData2016", "got none")


def test_a_label_outside_the_classes(ade_folder, helpers, one_line):
    path = ade_folder / "annotations" / "training" / "ADE_train_2.png"
    helpers.label(path, helpers.halves(0, 151), palette=False)
    with pytest.raises(DataError) as caught:
        class_presence(build_dataset("ade20k", ade_folder))
    one_line(caught.value, path, "class id 151", "0 to 150")
    assert not (ade_folder / ".ciss_fast").exists()
