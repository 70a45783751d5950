"""Tasks, image selection and label tables."""

import numpy as np
import pytest

from ciss_fast.data import Task, evaluation_label_table, select_images, training_label_table
from ciss_fast.data.tasks import rarest_class
from ciss_fast.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("19-1", 21, [20, 1]),
        ("15-5", 21, [16, 5]),
        ("15-1", 21, [16, 1, 1, 1, 1, 1]),
        ("10-1", 21, [11] + [1] * 10),
        ("5-3", 21, [6] + [3] * 5),
        ("10-5", 21, [11, 5, 5]),
        ("10-10", 21, [11, 10]),
        ("joint", 21, [21]),
        ("100-50", 151, [101, 50]),
        ("50-50", 151, [51, 50, 50]),
        ("100-10", 151, [101] + [10] * 5),
        ("100-5", 151, [101] + [5] * 10),
    ],
)
def test_classes_per_step(name, num_classes, expected):
    task = Task.parse(name, num_classes=num_classes)
    assert task.classes_per_step == expected
    assert task.num_steps == len(expected)
    assert task.num_classes == num_classes
    assert task.seen(task.num_steps - 1) == tuple(range(num_classes))
    assert [task.old_classes(step) for step in range(task.num_steps)] == [
        sum(expected[:step]) for step in range(len(expected))
    ]
    assert task.channel_of_class.tolist() == list(range(num_classes))


@pytest.mark.parametrize(
    ("alias", "num_classes", "name"),
    [("15-5s", 21, "15-1"), ("offline", 21, "joint"), ("50", 151, "50-50"), ("15-05", 21, "15-5")],
)
def test_other_names_of_a_task(alias, num_classes, name):
    task = Task.parse(alias, num_classes)
    assert task.name == name
    assert task == Task.parse(name, num_classes)


def test_class_order_by_id_and_name():
    names = ["background", "a", "b", "c", "d"]
    task = Task.parse("2-1", class_names=names, class_order=[3, 1, 4, 2])
    assert task.steps == ((0, 3, 1), (4,), (2,))
    assert task.seen(1) == (0, 3, 1, 4)
    assert task.channel_of_class.tolist() == [0, 2, 4, 1, 3]
    assert task == Task.parse("2-1", class_names=names, class_order=["c", "a", "d", "b"])
    assert task == Task.parse("2-1", num_classes=5, class_names=names, class_order=[0, 3, 1, 4, 2])
    assert hash(task) == hash(Task.parse("2-1", class_names=names, class_order=np.array([3, 1, 4, 2])))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("15-4", ["'15-4'", "5 classes after the base", "15-1, 15-5"]),
        ("15-6", ["'15-6'", "15-1, 15-5"]),
        ("15-0", ["'15-0'", "15-1, 15-5"]),
        ("20-1", ["'20-1'", "base of 20", "1 to 19", "joint"]),
        ("0-5", ["'0-5'", "base of 0"]),
        ("15-5x", ["'15-5x'", "base-increment", "joint"]),
        ("50", ["'50-50'", "base of 50"]),
        ("", ["''", "base-increment"]),
        ("15", ["'15'", "base-increment"]),
    ],
)
def test_bad_task_name(name, parts, one_line):
    with pytest.raises(ConfigError) as caught:
        Task.parse(name, num_classes=21)
    one_line(caught.value, "expected", *parts)


@pytest.mark.parametrize(
    ("order", "parts"),
    [
        ([1, 2, 3, 3], ["class 3 (c) repeats"]),
        ([1, 2, "c", "zebra"], ["unknown class 'zebra'", "background, a, b, c, d"]),
        ([1, 2, 3, 5], ["unknown class 5", "1 to 4"]),
        ([1, 2, 3, -1], ["unknown class -1"]),
        ([1, 4], ["2 of 5 classes missing", "2 (b), 3 (c)"]),
        ([1, 0, 2, 3, 4], ["class 0", "place 1", "background first"]),
        ([1, 2, 3, 4.0], ["4.0", "class ids or class names"]),
        ([True, 2, 3, 4], ["True"]),
    ],
)
def test_bad_class_order(order, parts, one_line):
    with pytest.raises(ConfigError) as caught:
        Task.parse("2-1", class_names=["background", "a", "b", "c", "d"], class_order=order)
    one_line(caught.value, "class order", *parts)


def test_bad_class_counts_and_steps(one_line):
    for arguments, part in (
        ({}, "neither"),
        ({"num_classes": 1}, "1 classes"),
        ({"num_classes": 256}, "256 classes"),
        ({"num_classes": 4, "class_names": ["background", "a"]}, "num_classes is 4; expected 2"),
    ):
        with pytest.raises(ConfigError) as caught:
            Task.parse("1-1", **arguments)
        one_line(caught.value, part)
    for steps in (((0, 1), (1, 2)), ((0, 1),), ((1, 0), (2,)), ((0, 1, 2), ()), ()):
        with pytest.raises(ConfigError):
            Task("own", ("background", "a", "b"), steps)
    for call in (Task.seen, Task.old_classes):
        for step in (-1, 2):
            with pytest.raises(ConfigError) as caught:
                call(Task.parse("15-5", 21), step)
            one_line(caught.value, "'15-5'", f"no step {step}", "0 to 1")


PRESENCE = np.array(
    [
        # background and classes 1 to 4; the order of learning is 3, 1 | 4 | 2
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1],
        [0, 0, 0, 0, 1],
        [1, 0, 1, 0, 1],
        [1, 0, 1, 0, 0],
    ],
    dtype=bool,
)


@pytest.mark.parametrize(
    ("setting", "purpose", "expected"),
    [
        ("overlapped", "train", [[1, 2, 3], [3, 4, 5], [2, 5, 6]]),
        ("disjoint", "train", [[1], [3, 4], [2, 5, 6]]),
        ("sequential", "train", [[1], [3, 4], [2, 5, 6]]),
        # Images that show 1, 2, 3, 4: one, three, two, three. Image 2 (2, 3) goes to 3, image 3 (3, 4) too, image 5
        # (2, 4) to 2, the smaller id.
        ("partitioned", "train", [[1, 2, 3], [4], [5, 6]]),
        ("overlapped", "val", [[1, 2, 3], [3, 4, 5], [2, 5, 6]]),
        ("disjoint", "val", [[1, 2, 3], [3, 4, 5], [2, 5, 6]]),
        ("sequential", "val", [[1, 2, 3], [3, 4, 5], [2, 5, 6]]),
        ("partitioned", "val", [[1, 2, 3], [3, 4, 5], [2, 5, 6]]),
        ("partitioned", "test", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]),
        ("overlapped", "test", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]),
        ("disjoint", "test", [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]),
    ],
)
def test_selected_images(setting, purpose, expected):
    task = Task.parse("2-1", 5, class_order=[3, 1, 4, 2])
    for step, indices in enumerate(expected):
        assert select_images(PRESENCE, task, step, setting, purpose).tolist() == indices


def test_partition_gives_every_image_to_its_rarest_class():
    assert rarest_class(PRESENCE).tolist() == [0, 1, 3, 3, 4, 2, 2]
    assert rarest_class(np.zeros((2, 5), dtype=bool)).tolist() == [0, 0]
    presence = np.random.default_rng(0).random((400, 9)) < np.linspace(0.9, 0.1, 9)
    frequency = [presence[:, class_id].sum() for class_id in range(9)]
    for row, chosen in zip(presence, rarest_class(presence), strict=True):
        shown = [class_id for class_id in range(1, 9) if row[class_id]]
        assert chosen == (min(shown, key=lambda class_id: (frequency[class_id], class_id)) if shown else 0)


def test_empty_step_and_bad_arguments(one_line):
    task = Task.parse("2-1", class_names=["background", "cat", "dog", "cow", "emu"])
    presence = PRESENCE.copy()
    presence[:, 4] = False
    with pytest.raises(DataError) as caught:
        select_images(presence, task, 2)
    one_line(caught.value, "'2-1', step 2", "none of 7 images", "emu")
    for arguments, part in (
        ((task, 0, "sequenced"), "'sequenced'"),
        ((task, 0, "disjoint", "testing"), "'testing'"),
        ((task, 3), "no step 3"),
    ):
        with pytest.raises(ConfigError) as caught:
            select_images(PRESENCE, *arguments)
        one_line(caught.value, part, "expected")
    with pytest.raises(ValueError, match=r"expected shape \[N, 5\], got \[7, 4\]"):
        select_images(PRESENCE[:, :4], task, 0)


def test_training_label_tables():
    task = Task.parse("2-1", 5, class_order=[3, 1, 4, 2])
    expected = [[0, 2, 0, 1, 0], [0, 0, 0, 0, 3], [0, 0, 4, 0, 0]]
    for step, row in enumerate(expected):
        table = training_label_table(task, step)
        assert table.dtype == np.uint8
        assert table.shape == (256,)
        assert table[:5].tolist() == row
        assert (table[5:] == 255).all()
        table = training_label_table(task, step, ignore_as_background=True)
        assert table[:5].tolist() == row
        assert table[255] == 0


def test_labels_of_the_sequential_setting_show_old_classes_too():
    task = Task.parse("2-1", 5, class_order=[3, 1, 4, 2])
    for step, row in enumerate([[0, 2, 0, 1, 0], [0, 2, 0, 1, 3], [0, 2, 4, 1, 3]]):
        table = training_label_table(task, step, "sequential")
        assert table[:5].tolist() == row
        assert (table[5:] == 255).all()
        assert training_label_table(task, step, "sequential", ignore_as_background=True)[255] == 0
    for setting in ("disjoint", "partitioned"):
        assert (training_label_table(task, 1, setting) == training_label_table(task, 1)).all()
    with pytest.raises(ConfigError, match="unknown setting 'ordered': expected one of overlapped, disjoint"):
        training_label_table(task, 1, "ordered")


def test_evaluation_label_tables():
    task = Task.parse("2-1", 5, class_order=[3, 1, 4, 2])
    for step, row in enumerate([[0, 2, 0, 1, 0], [0, 2, 0, 1, 3], [0, 2, 4, 1, 3]]):
        table = evaluation_label_table(task, step)
        assert table.dtype == np.uint8
        assert table[:5].tolist() == row
        assert (table[5:] == 255).all()
    assert evaluation_label_table(task, 0, "ignore")[:5].tolist() == [0, 2, 255, 1, 255]
    assert evaluation_label_table(task, 1, "ignore", ignore_background=True)[:5].tolist() == [
        255,
        2,
        255,
        1,
        3,
    ]
    with pytest.raises(ConfigError):
        evaluation_label_table(task, 0, "drop")
