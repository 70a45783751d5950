"""The step lists that the published VOC experiments were run on."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from ciss_fast.data import Task, select_images

TASKS = ["19-1", "15-5", "15-1", "10-1", "5-3", "10-5", "10-10", "joint"]
SETTINGS = [("overlapped", "overlap"), ("disjoint", "disjoint")]
PURPOSES = ["train", "val", "test"]


@pytest.fixture(scope="module")
def published(shared_file):
    with gzip.open(shared_file("golden/voc_splits.json.gz")) as file:
        return json.load(file)


@pytest.fixture(scope="module")
def step_ids(published):
    """A function from setting, task, purpose and step to the ids that are chosen."""
    presence = {}
    for purpose, list_name in (("train", "train_aug"), ("val", "val"), ("test", "val")):
        ids = published[list_name]
        presence[purpose] = np.zeros((len(ids), 21), dtype=bool)
        for row, image_id in enumerate(ids):
            presence[purpose][row, published["image_classes"][image_id]] = True

    def choose(setting, task, purpose, step):
        ids = published["train_aug" if purpose == "train" else "val"]
        return [ids[i] for i in select_images(presence[purpose], Task.parse(task, 21), step, setting, purpose)]

    return choose


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(("setting", "list_name"), SETTINGS)
def test_same_images_in_the_same_order(published, step_ids, setting, list_name, purpose, step):
    assert step_ids(setting, "15-5", purpose, step) == published["steps_15-5"][f"{list_name}_15-5_{purpose}_{step:02d}"]


@pytest.mark.parametrize("task", TASKS)
def test_every_list_of_every_task_is_what_its_definition_says(published, step_ids, task):
    """Image by image with sets, against the selection's arrays."""
    steps = [set(classes) - {0} for classes in Task.parse(task, 21).steps]
    shown = {image_id: set(classes) for image_id, classes in published["image_classes"].items()}
    for step, classes in enumerate(steps):
        seen, later = set().union(*steps[: step + 1]), set().union(*steps[step + 1 :])
        train = [image_id for image_id in published["train_aug"] if shown[image_id] & classes]
        assert step_ids("overlapped", task, "train", step) == train
        without_later = [image_id for image_id in train if not shown[image_id] & later]
        for setting in ("disjoint", "sequential"):
            assert step_ids(setting, task, "train", step) == without_later
        for setting in ("overlapped", "disjoint", "sequential", "partitioned"):
            val = [image_id for image_id in published["val"] if shown[image_id] & classes]
            assert step_ids(setting, task, "val", step) == val
            test = [image_id for image_id in published["val"] if shown[image_id] & seen]
            assert step_ids(setting, task, "test", step) == test


@pytest.mark.parametrize("task", TASKS)
def test_settings_share_out_the_images_as_they_should(published, step_ids, task):
    num_steps = Task.parse(task, 21).num_steps
    some_class = [image_id for image_id in published["train_aug"] if set(published["image_classes"][image_id]) - {0}]
    for setting in ("disjoint", "sequential", "partitioned"):
        lists = [step_ids(setting, task, "train", step) for step in range(num_steps)]
        assert sum(map(len, lists)) == len(set().union(*lists)) == len(some_class)  # every image in one step
    overlapped = [step_ids("overlapped", task, "train", step) for step in range(num_steps)]
    assert set().union(*overlapped) == set(some_class)
    assert step_ids("disjoint", task, "train", num_steps - 1) == overlapped[-1]


@pytest.mark.parametrize(("setting", "list_name"), SETTINGS)
def test_lists_of_other_tasks_that_the_published_ones_contain(published, step_ids, setting, list_name):
    lists = published["steps_15-5"]
    for purpose in PURPOSES:  # 15-1 begins with the same classes
        assert step_ids(setting, "15-1", purpose, 0) == lists[f"{list_name}_15-5_{purpose}_00"]
    for task, last in (("15-1", 5), ("10-5", 2), ("10-10", 1), ("5-3", 5), ("joint", 0)):  # after the last step all
        assert step_ids(setting, task, "test", last) == lists[f"{list_name}_15-5_test_01"]
    for purpose in ("train", "val"):  # 10-5 ends with the same classes
        assert step_ids(setting, "10-5", purpose, 2) == lists[f"{list_name}_15-5_{purpose}_01"]
    together = set().union(*(step_ids(setting, "15-1", "train", step) for step in range(1, 6)))
    assert together == set(lists[f"{list_name}_15-5_train_01"])


def test_the_rarest_class_keeps_all_its_images_in_the_partition(published):
    counts = {class_id: 0 for class_id in range(1, 21)}
    for image_id in published["train_aug"]:
        for class_id in set(published["image_classes"][image_id]) - {0}:
            counts[class_id] += 1
    rarest = min(counts, key=lambda class_id: (counts[class_id], class_id))
    order = [class_id for class_id in range(1, 21) if class_id != rarest] + [rarest]
    presence = np.zeros((len(published["train_aug"]), 21), dtype=bool)
    for row, image_id in enumerate(published["train_aug"]):
        presence[row, published["image_classes"][image_id]] = True
    task = Task.parse("19-1", 21, class_order=order)
    assert len(select_images(presence, task, 1, "partitioned")) == counts[rarest]
    assert len(select_images(presence, task, 1, "overlapped")) == counts[rarest]


def test_numbers_of_images_of_a_part_of_voc(shared_file):
    """Counted by others, from the label maps themselves."""
    labels = {}
    with tarfile.open(shared_file("data/voc12part_bal320.tar")) as archive:
        for member in archive:
            if "/SegmentationClass/" in member.name and member.name.endswith(".png"):
                content = archive.extractfile(member).read()
                labels[member.name.rsplit("/", 1)[1][:-4]] = np.asarray(Image.open(io.BytesIO(content)))
            elif member.name.endswith("ImageSets/Segmentation/train.txt"):
                ids = archive.extractfile(member).read().decode().split()
    presence = np.array([np.bincount(labels[image_id].ravel(), minlength=256)[:21] > 0 for image_id in ids])
    expected = {
        "15-5": [1471, 530],
        "10-10": [858, 1287],
        "15-1": [1471, 72, 291, 107, 19, 60],
        "19-1": [1724, 60],
    }
    for name, counts in expected.items():
        task = Task.parse(name, 21)
        assert [len(select_images(presence, task, step)) for step in range(task.num_steps)] == counts
