"""Pascal VOC's layout."""

import numpy as np
import pytest

from ciss_fast.data import build_dataset
from ciss_fast.data.voc import VOC_CLASSES
from ciss_fast.errors import ConfigError, DataError


def test_splits_classes_and_content(voc_folder, helpers):
    train, val = build_dataset("voc", voc_folder), build_dataset("voc", voc_folder, "val")
    assert train.ids == ["2007_a", "2007_b", "2007_c"]
    assert val.ids == ["2007_d"]
    assert len(train) == 3
    assert train.class_names == list(VOC_CLASSES)
    assert len(VOC_CLASSES) == 21
    image, label = train.load(1)
    assert image.shape == (24, 36, 3)
    assert image.dtype == np.uint8
    assert np.array_equal(label, helpers.halves(20, 1))
    assert np.array_equal(train.load_label(1), label)
    assert train.image_size(1) == (24, 36)


def test_root_may_be_a_parent(voc_folder):
    for root in (voc_folder, voc_folder.parent, voc_folder.parent.parent):
        assert build_dataset("voc", root).root == voc_folder


def test_root_with_several_candidates(voc_folder, one_line):
    other = voc_folder.with_name("VOC2007")
    (other / "JPEGImages").mkdir(parents=True)
    (other / "ImageSets" / "Segmentation").mkdir(parents=True)
    assert build_dataset("voc", voc_folder.parent).root == voc_folder
    voc_folder.rename(voc_folder.with_name("copy"))
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder.parent)
    one_line(caught.value, voc_folder.parent, "VOC2007", "copy")


def test_root_without_candidates(tmp_path, one_line):
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError) as caught:
            build_dataset("voc", root)
        one_line(caught.value, root, "expected")
    with pytest.raises(ConfigError) as caught:
        build_dataset("voc")
    one_line(caught.value, "voc", "root")


def test_train_aug_list_and_sbd_labels_are_preferred(voc_folder, helpers):
    lists = voc_folder / "ImageSets" / "Segmentation"
    lines = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in ("2007_c", "2007_d")]
    (lists / "train_aug.txt").write_text("\r\n".join(lines))
    for name in ("2007_c", "2007_d"):
        helpers.label(
            voc_folder / "SegmentationClassAug" / f"{name}.png", helpers.halves(5, 6), palette=False
        )
    augmented = build_dataset("voc", voc_folder)
    assert augmented.ids == ["2007_c", "2007_d"]
    assert np.array_equal(augmented.load_label(0), helpers.halves(5, 6))
    plain = build_dataset("voc", voc_folder, labels="SegmentationClass", train_list="train")
    assert plain.ids == ["2007_a", "2007_b", "2007_c"]
    assert np.array_equal(plain.load_label(2), helpers.halves(0, 0))


@pytest.mark.parametrize("place", ["ImageSets/Segmentation", "ImageSets/SegmentationAug", "splits"])
@pytest.mark.parametrize("name", ["train_aug", "trainaug"])
def test_places_and_names_of_the_augmented_list(voc_folder, place, name):
    path = voc_folder / place / f"{name}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("2007_c\n2007_a\n")
    assert build_dataset("voc", voc_folder.parent).ids == ["2007_c", "2007_a"]
    assert build_dataset("voc", voc_folder, train_list="train").ids == ["2007_a", "2007_b", "2007_c"]
    assert build_dataset("voc", voc_folder, "val").ids == ["2007_d"]


def test_lists_in_the_folder_that_mib_uses_alone(voc_folder):
    (voc_folder / "ImageSets" / "Segmentation").rename(voc_folder / "splits")
    (voc_folder / "ImageSets").rmdir()
    assert build_dataset("voc", voc_folder.parent.parent).ids == ["2007_a", "2007_b", "2007_c"]


def test_each_split_has_its_own_list(voc_folder):
    options = {"train_list": "val", "val_list": "train"}
    assert build_dataset("voc", voc_folder, "train", **options).ids == ["2007_d"]
    assert build_dataset("voc", voc_folder, "val", **options).ids == ["2007_a", "2007_b", "2007_c"]


def test_a_list_by_name_that_is_not_there(voc_folder, one_line):
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder, train_list="trainval")
    one_line(caught.value, voc_folder / "ImageSets" / "Segmentation" / "trainval.txt", "missing; expected trainval.txt")


def test_augmented_list_without_the_label_maps_of_sbd(voc_folder, one_line):
    path = voc_folder / "ImageSets" / "Segmentation" / "train_aug.txt"
    path.write_text("2007_a\n2008_x\n")
    (voc_folder / "JPEGImages" / "2008_x.jpg").write_bytes((voc_folder / "JPEGImages" / "2007_a.jpg").read_bytes())
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder)
    one_line(caught.value, voc_folder / "SegmentationClass" / "2008_x.png", "missing", path)


def test_own_class_list(voc_folder):
    lines = [f"{index} thing {index}" for index in range(22)]
    (voc_folder / "classes.txt").write_text("\n".join([*lines, "255 ignore"]))
    dataset = build_dataset("voc", voc_folder)
    assert dataset.class_names == [f"thing {index}" for index in range(22)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0 background\n0 cat\n", ["class id 0 repeats", "line 2"]),
        ("0 background\n2 cat\n", ["class id 1 is missing", "0 to 2"]),
        ("0 background\ncat\n", ["line 2", "'cat'", "id name"]),
        ("0 background\n1 cat\n2 cat\n", ["'cat' repeats"]),
        ("0 background\n", ["1 classes", "2 to 255"]),
        ("", ["0 classes"]),
    ],
)
def test_bad_class_list(voc_folder, one_line, text, parts):
    (voc_folder / "classes.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder)
    one_line(caught.value, voc_folder / "classes.txt", *parts)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty", "expected one image id a line"]),
        (b" \n\n", ["empty"]),
        (b"2007_a\n2007_b\n2007_a\n", ["2007_a", "line 3", "line 1"]),
        (b"\xff\xfe\x80", ["UTF-8"]),
    ],
)
def test_bad_image_list(voc_folder, one_line, content, parts):
    path = voc_folder / "ImageSets" / "Segmentation" / "train.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder)
    one_line(caught.value, path, *parts)


def test_missing_files_are_found_at_once(voc_folder, one_line):
    list_path = voc_folder / "ImageSets" / "Segmentation" / "train.txt"
    for path in (
        voc_folder / "SegmentationClass" / "2007_c.png",
        voc_folder / "JPEGImages" / "2007_b.jpg",
    ):
        path.unlink()
        with pytest.raises(DataError) as caught:
            build_dataset("voc", voc_folder)
        one_line(caught.value, path, "missing", list_path, path.stem)
    list_path.unlink()
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder)
    one_line(caught.value, list_path, "missing; expected train_aug.txt or trainaug.txt or train.txt there")


def test_missing_label_folder(voc_folder, one_line):
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder, labels="SegmentationObject")
    one_line(caught.value, voc_folder / "SegmentationObject", "missing")


def test_options_that_are_no_names(voc_folder, one_line):
    for option, value in (("labels", 5), ("train_list", ["train"]), ("val_list", 1)):
        with pytest.raises(ConfigError) as caught:
            build_dataset("voc", voc_folder, **{option: value})
        one_line(caught.value, "voc", option, repr(value), "expected a name")


def test_the_same_image_in_two_spellings(voc_folder, one_line):
    path = voc_folder / "ImageSets" / "Segmentation" / "train.txt"
    path.write_text("2007_a\n/JPEGImages/2007_a.jpg\n")
    with pytest.raises(DataError) as caught:
        build_dataset("voc", voc_folder)
    one_line(caught.value, path, "'2007_a' on line 2", "line 1")


def test_label_map_of_another_size(voc_folder, helpers, one_line):
    path = voc_folder / "SegmentationClass" / "2007_b.png"
    helpers.label(path, helpers.halves(0, 1, size=(36, 24)))
    dataset = build_dataset("voc", voc_folder)
    for load in (dataset.load, dataset.load_label):
        with pytest.raises(DataError) as caught:
            load(1)
        one_line(caught.value, path, "24x36", "expected 36x24", voc_folder / "JPEGImages" / "2007_b.jpg")


def test_label_map_with_an_unknown_class(voc_folder, helpers, one_line):
    path = voc_folder / "SegmentationClass" / "2007_b.png"
    helpers.label(path, helpers.halves(0, 21))
    dataset = build_dataset("voc", voc_folder)
    for load in (dataset.load, dataset.load_label):
        with pytest.raises(DataError) as caught:
            load(1)
        one_line(caught.value, path, "class id 21", "0 to 20")


def test_unknown_names_and_options(voc_folder, one_line):
    with pytest.raises(ConfigError) as caught:
        build_dataset("cityscapes", voc_folder)
    one_line(caught.value, "'cityscapes'", "ade20k, folder, shapes, voc")
    with pytest.raises(ConfigError) as caught:
        build_dataset("voc", voc_folder, "test")
    one_line(caught.value, "'test'", "train, val")
    with pytest.raises(ConfigError) as caught:
        build_dataset("voc", voc_folder, label="SegmentationClass")
    one_line(caught.value, "'label'", "labels, train_list, val_list")
    with pytest.raises(ConfigError) as caught:
        build_dataset("folder", voc_folder, anything=1)
    one_line(caught.value, "'anything'", "none")
