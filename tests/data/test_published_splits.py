"""The step lists that the published VOC experiments were run on."""

import gzip
import json

import numpy as np
import pytest

from ciss_fast.data import Task, select_images


@pytest.fixture(scope="module")
def published(shared_file):
    with gzip.open(shared_file("golden/voc_splits.json.gz")) as file:
        return json.load(file)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("purpose", ["train", "val", "test"])
@pytest.mark.parametrize(("setting", "list_name"), [("overlapped", "overlap"), ("disjoint", "disjoint")])
def test_same_images_in_the_same_order(published, setting, list_name, purpose, step):
    ids = published["train_aug" if purpose == "train" else "val"]
    presence = np.zeros((len(ids), 21), dtype=bool)
    for row, image_id in enumerate(ids):
        presence[row, published["image_classes"][image_id]] = True
    chosen = select_images(presence, Task.parse("15-5", 21), step, setting, purpose)
    expected = published["steps_15-5"][f"{list_name}_15-5_{purpose}_{step:02d}"]
    assert [ids[index] for index in chosen] == expected
