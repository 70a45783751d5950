"""Which images the memory of DKD-M holds, and what they show at the step that replays them."""

import numpy as np
import pytest

from ciss_fast.data import TrainingSet, TrainingTransform, class_presence, select_images, training_label_table
from ciss_fast.data.shapes import ShapesDataset
from ciss_fast.data.tasks import Task
from ciss_fast.errors import DataError
from ciss_fast.memory.image_classes import image_classes
from ciss_fast.memory.image_memory import (
    Candidate,
    ImageMemory,
    MemoryImage,
    gather_candidates,
    published_memory_size,
    replayed_images,
    select_memory,
)


class InOrder:
    """A generator that shuffles nothing."""

    def permutation(self, x):
        return np.arange(x) if isinstance(x, int) else np.array(x)


SEEDED = [
    ("train_00034", 12),
    ("train_00025", 9),
    ("train_00008", 7),
    ("train_00000", 10),
    ("train_00022", 11),
    ("train_00018", 8),
    ("train_00030", 12),
    ("train_00029", 9),
]
"""Memory of step 1 of the task below: 8 images for its first six classes."""


def chosen(memory):
    return [(image.image_id, image.chosen_for) for image in memory]


def by_scanning(candidates, class_ids, size, rng):
    """The same choice, step by step: every turn looks through all that is left."""
    left = [candidates[i] for i in rng.permutation(len(candidates))]
    turns = rng.permutation([class_id for class_id in class_ids if class_id]).tolist()
    taken = []
    while len(taken) < size and any(set(turns) & set(candidate.classes) for candidate in left):
        for class_id in turns:
            fitting = [candidate for candidate in left if class_id in candidate.classes]
            if len(taken) < size and fitting:
                left.remove(fitting[0])
                taken.append((fitting[0].image_id, class_id))
    return taken


def step_memory(dataset, task, step, setting, size, carried=()):
    """The memory of a step, as a training run makes it; step 1 needs no model."""
    indices = select_images(class_presence(dataset), task, step - 1, setting)
    crops = TrainingSet(
        dataset, indices, training_label_table(task, step - 1), TrainingTransform(dataset.size), seed=7
    )
    batches = [(image[None], label[None]) for image, label in (crops[i] for i in range(len(crops)))]
    classes = image_classes(batches, task.seen(step - 1))
    candidates = gather_candidates([dataset.ids[i] for i in indices], classes, step - 1, carried)
    images = select_memory(candidates, task.seen(step - 1), size, np.random.default_rng([7, step]))
    return ImageMemory(step, size, "shapes", dataset.fingerprint, images), candidates


@pytest.fixture(scope="module")
def shapes():
    return ShapesDataset(image_size_px=48, train_images=40)


@pytest.fixture(scope="module")
def task(shapes):
    return Task.parse("6-3", class_names=shapes.class_names, class_order=list(range(12, 0, -1)))


def test_classes_take_turns():
    """By hand: candidates in order a ... f; class 1 has a, b, c; class 2 a, d; class 3 d, e."""
    candidates = [
        Candidate("a", (1, 2), 0),
        Candidate("b", (1,), 0),
        Candidate("c", (1,), 0),
        Candidate("d", (2, 3), 0),
        Candidate("e", (3,), 0),
        Candidate("f", (), 0),
    ]
    expected = [("a", 1), ("d", 2), ("e", 3), ("b", 1), ("c", 1)]
    for size in range(7):
        assert chosen(select_memory(candidates, [0, 1, 2, 3], size, InOrder())) == expected[:size]


def test_a_class_chosen_for_is_one_the_image_shows(shapes, task):
    memory, candidates = step_memory(shapes, task, 1, "overlapped", 12)
    by_id = {candidate.image_id: candidate for candidate in candidates}
    for image in memory.images:
        assert image.chosen_for in image.classes
        assert Candidate(image.image_id, image.classes, image.step) == by_id[image.image_id]


def test_memory_of_a_seeded_data_set(shapes, task):
    """Exactly these images, whatever came before."""
    memory, _ = step_memory(shapes, task, 1, "overlapped", 8)
    assert chosen(memory.images) == SEEDED


@pytest.mark.parametrize("size", [1, 5, 17, 33, 40])
def test_against_scanning(size, shapes, task):
    memory, candidates = step_memory(shapes, task, 1, "overlapped", size)
    expected = by_scanning(candidates, task.seen(0), size, np.random.default_rng([7, 1]))
    assert chosen(memory.images) == expected


def test_round_robin_is_balanced():
    """With candidates enough, no class is chosen for more than once more often than another."""
    rng = np.random.default_rng(0)
    candidates = [
        Candidate(str(n), tuple(sorted(rng.choice(np.arange(1, 8), size=2, replace=False).tolist())), 0)
        for n in range(400)
    ]
    for size in (1, 7, 20, 100):
        memory = select_memory(candidates, range(8), size, np.random.default_rng(size))
        assert len({image.image_id for image in memory}) == len(memory) == size
        counts = [sum(image.chosen_for == class_id for image in memory) for class_id in range(1, 8)]
        assert max(counts) - min(counts) <= 1


def test_chance_comes_from_the_generator():
    candidates = [Candidate(str(n), (1 + n % 3,), 0) for n in range(60)]
    first, again, other = (
        chosen(select_memory(candidates, range(4), 9, np.random.default_rng(seed))) for seed in (0, 0, 1)
    )
    assert first == again != other
    starts = {
        chosen(select_memory(candidates, range(4), 1, np.random.default_rng(seed)))[0][1] for seed in range(20)
    }
    assert starts == {1, 2, 3}  # the order of the classes is shuffled as well


def test_out_of_candidates():
    """It ends with what there is: images of no class are left out, and a class without images has no turn."""
    candidates = [Candidate("a", (1,), 0), Candidate("b", (), 0), Candidate("c", (1, 3), 0)]
    memory = select_memory(candidates, [0, 3, 1, 2], 100, np.random.default_rng(0))
    assert {image.image_id for image in memory} == {"a", "c"}
    assert select_memory([], [0, 1], 100, np.random.default_rng(0)) == ()
    assert select_memory(candidates, [0, 2], 100, np.random.default_rng(0)) == ()


def test_bad_selections():
    with pytest.raises(ValueError, match="^size: expected at least 0, got -1$"):
        select_memory([], [1], -1, np.random.default_rng(0))
    twice = [Candidate("a", (1,), 0), Candidate("a", (2,), 1)]
    with pytest.raises(ValueError, match="^candidates: expected each image once$"):
        select_memory(twice, [1], 1, np.random.default_rng(0))


def test_candidates_are_the_step_before_and_the_memory_carried():
    carried = [MemoryImage("x", (1,), 0, 1), MemoryImage("b", (1, 2), 0, 2)]
    assert gather_candidates(["a", "b"], [(4, 3), (4,)], 1, carried) == [
        Candidate("a", (3, 4), 1),
        Candidate("b", (1, 2, 4), 0),
        Candidate("x", (1,), 0),
    ]
    with pytest.raises(ValueError):
        gather_candidates(["a", "b"], [(1,)], 1)


@pytest.mark.parametrize("setting", ["overlapped", "disjoint"])
def test_no_label_of_an_old_class_comes_back(setting, shapes, task):
    """In both settings an image of the memory shows the classes of the step that replays it, if any."""
    carried = ()
    for step in (1, 2):
        memory, _ = step_memory(shapes, task, step, setting, 10, carried)
        carried = memory.images
        step_images = select_images(class_presence(shapes), task, step, setting)
        replayed = replayed_images(memory, shapes.ids)
        assert replayed.dtype == np.int64 and np.array_equal(replayed, np.unique(replayed))
        assert [shapes.ids[i] for i in replayed] == sorted(image.image_id for image in memory.images)

        training = TrainingSet(shapes, replayed, training_label_table(task, step), None)
        present = {int(i): set(training[n][1].unique().tolist()) for n, i in enumerate(replayed)}
        new = {int(task.channel_of_class[class_id]) for class_id in task.steps[step]}
        assert set().union(*present.values()) <= {0, 255} | new
        extra = set(present) - set(step_images.tolist())
        assert extra
        # Overlapped, what shows a class of the step is among its images already: the label of the rest is empty.
        if setting == "overlapped":
            assert all(present[index] <= {0, 255} for index in extra)


def test_an_empty_memory_replays_nothing():
    nothing = replayed_images(ImageMemory(1, 2, "shapes", "", ()), ["a", "b"])
    assert nothing.dtype == np.int64 and nothing.shape == (0,)


def test_an_image_that_is_not_there():
    memory = ImageMemory(2, 2, "shapes", "", (MemoryImage("z", (1,), 0, 1),))
    with pytest.raises(DataError, match="^image memory of step 2: expected ids of the data set, got 'z'$"):
        replayed_images(memory, ["a", "b"])


def test_published_sizes():
    assert [published_memory_size(name) for name in ("voc", "ade20k", "shapes")] == [100, 300, 100]
