"""Training and evaluation sets, the memory cache, and the loaders."""

import itertools
import multiprocessing
import os
import signal
from contextlib import closing

import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from ciss_fast.data import (
    EvaluationSet,
    MemoryCache,
    Task,
    TrainingSet,
    TrainingTransform,
    build_dataset,
    evaluation_label_table,
    make_evaluation_loader,
    make_loader,
    normalise,
    training_label_table,
)
from ciss_fast.data.loading import EpochSampler
from ciss_fast.errors import DataError

TASK = Task.parse("8-2", num_classes=13)


@pytest.fixture(scope="module")
def shapes():
    return build_dataset("shapes", train_images=23, image_size_px=40)


def training_set(dataset, indices=range(23), seed=0, transform=None):
    return TrainingSet(
        dataset, indices, training_label_table(TASK, 1), transform or TrainingTransform(32), seed
    )


def batches_of(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def assert_same_batches(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_training_item_without_augmentation(shapes):
    table = training_label_table(TASK, 1)
    items = TrainingSet(shapes, [4, 7], table, None)
    image, label = items[1]
    assert len(items) == 2
    assert torch.equal(image, normalise(shapes.load(7)[0]))
    assert label.dtype == torch.int64
    assert np.array_equal(label.numpy(), table[shapes.load(7)[1]])
    assert set(label.unique().tolist()) <= {0, 9, 10, 255}


def test_augmentation_depends_on_seed_epoch_and_image_only(shapes):
    items = training_set(shapes)
    image, label = items[5]
    assert image.shape == (3, 32, 32)
    assert label.shape == (32, 32)
    for other in (training_set(shapes)[0, 5], training_set(shapes, indices=[1, 5])[0, 1]):
        assert torch.equal(other[0], image)
        assert torch.equal(other[1], label)
    assert not torch.equal(items[1, 5][0], image)
    assert not torch.equal(training_set(shapes, seed=1)[5][0], image)
    items.set_epoch(1)
    assert torch.equal(items[5][0], items[1, 5][0])


def test_order_depends_on_seed_and_epoch_only(shapes):
    loader = make_loader(training_set(shapes), 4)
    torch.manual_seed(0)
    first = batches_of(loader, 0)
    second = batches_of(loader, 1)
    torch.manual_seed(1)
    assert_same_batches(batches_of(make_loader(training_set(shapes), 4), 1), second)
    assert_same_batches(batches_of(loader, 0), first)
    assert not torch.equal(first[0][0], second[0][0])
    other = batches_of(make_loader(training_set(shapes), 4, seed=9), 0)
    assert not torch.equal(first[0][0], other[0][0])


def test_every_image_comes_once_an_epoch():
    sampler = EpochSampler(50, seed=3)
    keys = sampler.epoch(7)
    assert len(sampler) == 50
    assert {epoch for epoch, _ in keys} == {7}
    assert sorted(position for _, position in keys) == list(range(50))
    assert [position for _, position in keys] != list(range(50))


def test_shards_share_one_permutation():
    whole = [position for _, position in EpochSampler(10, seed=3).epoch(0)]
    parts = [[position for _, position in EpochSampler(10, 3, shard, 4).epoch(0)] for shard in range(4)]
    assert [len(part) for part in parts] == [3, 3, 3, 3]
    dealt = [parts[place % 4][place // 4] for place in range(12)]
    assert dealt == whole + whole[:2]
    with pytest.raises(ValueError, match="shard: expected 0 to 1, got 2"):
        EpochSampler(10, 0, 2, 2)


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4] * 5), (22, [22]), (23, [23]), (24, [23])])
def test_a_partial_last_batch_is_dropped_only_after_a_full_one(shapes, batch_size, sizes):
    loader = make_loader(training_set(shapes), batch_size)
    assert len(loader) == len(sizes)
    assert [len(images) for images, _ in loader] == sizes


def test_loader_processes_change_nothing(shapes):
    alone, helped = make_loader(training_set(shapes), 4), make_loader(training_set(shapes), 4, workers=2)
    for epoch in (0, 3):
        assert_same_batches(batches_of(alone, epoch), batches_of(helped, epoch))


def test_loading_leaves_the_global_random_state_alone(shapes):
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    batches_of(make_loader(training_set(shapes), 4), 0)
    evaluation = EvaluationSet(shapes, range(23), evaluation_label_table(TASK, 1))
    list(make_evaluation_loader(evaluation, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_loading_stay_one_line(voc_folder, one_line, workers):
    path = voc_folder / "JPEGImages" / "2007_b.jpg"
    path.write_bytes(path.read_bytes()[:300])
    dataset = build_dataset("voc", voc_folder)
    items = TrainingSet(dataset, [1], training_label_table(Task.parse("15-5", 21), 0), TrainingTransform(16))
    with pytest.raises(DataError) as caught:
        list(make_loader(items, 1, workers=workers))
    one_line(caught.value, path, "expected")
    assert str(caught.value).startswith(str(path))
    # Its traceback holds the loader; let the loader process go now.
    del caught


def test_evaluation_at_each_images_own_size(voc_folder, helpers):
    helpers.image(voc_folder / "JPEGImages" / "2007_b.jpg", size=(36, 24))
    helpers.label(voc_folder / "SegmentationClass" / "2007_b.png", helpers.halves(20, 1, size=(36, 24)))
    dataset = build_dataset("voc", voc_folder)
    table = evaluation_label_table(Task.parse("15-5", 21), 1)
    items = EvaluationSet(dataset, [0, 1, 2], table)
    loader = make_evaluation_loader(items, 2)
    batches = list(loader)
    assert len(loader) == 2
    assert [tuple(images.shape) for images, _ in batches] == [(2, 3, 24, 36), (1, 3, 36, 24)]
    assert np.array_equal(batches[0][1][0].numpy(), helpers.halves(0, 3))
    assert np.array_equal(batches[0][1][1].numpy(), helpers.halves(0, 0))
    assert np.array_equal(batches[1][1][0].numpy(), helpers.halves(20, 1, size=(36, 24)))
    assert torch.equal(batches[1][0][0], normalise(dataset.load(1)[0]))
    singles = list(make_evaluation_loader(items))
    assert [images.shape[2] for images, _ in singles] == [24, 36, 24]
    resized = list(make_evaluation_loader(EvaluationSet(dataset, [0, 1, 2], table, resize=20), 3))
    assert [tuple(labels.shape) for _, labels in resized] == [(3, 20, 20)]


class Counting:
    """A data set that counts how often images are loaded."""

    def __init__(self, dataset):
        self.dataset, self.loads = dataset, 0
        self.class_names, self.ids, self.root = dataset.class_names, dataset.ids, None
        self.fingerprint = dataset.fingerprint

    def __len__(self):
        return len(self.dataset)

    def load(self, index):
        self.loads += 1
        return tuple(array.copy() for array in self.dataset.load(index))

    def load_label(self, index):
        return self.load(index)[1]

    def image_size(self, index):
        return self.dataset.image_size(index)


def test_memory_cache(shapes):
    counting, calls = Counting(shapes), []
    cache = MemoryCache(counting, progress=lambda done, total: calls.append((done, total)))
    for _ in range(3):
        image, label = cache.load(5)
        assert np.array_equal(image, shapes.load(5)[0])
        assert np.array_equal(label, cache.load_label(5))
    assert counting.loads == 1
    assert cache.image_size(5) == cache.image_size(6) == (40, 40)
    assert not image.flags.writeable
    assert (len(cache), cache.fingerprint, cache.ids) == (23, shapes.fingerprint, shapes.ids)
    cache.keep([5, 6, 7], load=True)
    assert calls == [(1, 2), (2, 2)]
    assert counting.loads == 3 and cache.num_images == 3


ONE = 40 * 40 * 4  # bytes of an image and its label map


def test_memory_cache_with_a_limit(shapes):
    counting = Counting(shapes)
    cache = MemoryCache(counting, max_bytes=2 * ONE + 1)
    for _ in range(2):
        for index in range(3):
            assert np.array_equal(cache.load(index)[0], shapes.load(index)[0])
    assert cache.num_bytes == 2 * ONE
    assert counting.loads == 4


def test_memory_cache_makes_room_for_other_images(shapes):
    cache = MemoryCache(Counting(shapes), max_bytes=4 * ONE)
    cache.keep(range(10), load=True)
    assert (cache.num_images, cache.num_bytes) == (4, 4 * ONE)
    cache.keep([3, 20, 21], load=False)  # the next step's
    assert (cache.num_images, cache.num_bytes) == (1, ONE)
    cache.keep([3, 20, 21], load=True)
    assert (cache.num_images, cache.num_bytes) == (3, 3 * ONE)
    loads = cache.dataset.loads
    for index in (3, 20, 21):
        assert np.array_equal(cache.load(index)[1], shapes.load(index)[1])
    assert cache.dataset.loads == loads
    cache.keep([], load=True)
    assert (cache.num_images, cache.num_bytes) == (0, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_without_end(shapes, workers):
    """Epoch after epoch, from any batch on; the same loader processes all the time."""
    loader = make_loader(training_set(shapes), 4, workers=workers)
    expected = [batch for epoch in range(3) for batch in batches_of(loader, epoch)]
    processes = []
    for first in (0, 3, 7):
        with closing(loader.endless(first)) as items:
            got = []
            for batch in itertools.islice(items, len(expected) - first):
                got.append(batch)
                processes.append({child.pid for child in multiprocessing.active_children()})
        assert_same_batches(got, expected[first:])
    assert all(group == processes[0] for group in processes) and len(processes[0]) == workers
    assert_same_batches(batches_of(loader, 1), expected[5:10])  # one epoch ends again


class Deadly:
    """A data set that ends the process that reads its third image."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def load(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.dataset.load(index)


class Terminated(Deadly):
    """Gets the signal that a batch system sends to all processes of a job."""

    def load(self, index):
        if index == 2 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.dataset.load(index)


def test_loader_processes_leave_a_request_to_end_to_the_process_that_trains(shapes):
    table = training_label_table(TASK, 1)
    items = TrainingSet(Terminated(shapes), range(8), table, TrainingTransform(32))
    assert len(list(make_loader(items, 2, workers=1))) == 4
    items = EvaluationSet(Terminated(shapes), range(8), table)
    assert len(list(make_evaluation_loader(items, 1, workers=1))) == 8


def test_a_loader_process_that_dies_is_one_line(shapes, one_line):
    items = TrainingSet(Deadly(shapes), range(8), training_label_table(TASK, 1), TrainingTransform(32))
    with pytest.raises(DataError) as caught:
        list(make_loader(items, 2, workers=1))
    one_line(caught.value, "a process that loads images has died (", "fewer --workers may help")
    del caught


def test_bad_arguments(shapes, one_line):
    table = training_label_table(TASK, 0)
    for indices, part in (
        ([], "at least one"),
        ([0, 23], "from 0 to 23; expected 0 to 22"),
        ([-1], "from -1"),
    ):
        for make in (
            lambda indices: TrainingSet(shapes, indices, table, None),
            lambda indices: EvaluationSet(shapes, indices, table),
        ):
            with pytest.raises(DataError) as caught:
                make(indices)
            one_line(caught.value, "image indices", part)
    with pytest.raises(ValueError, match=r"label_table: expected uint8 \[256\], got int64 \[13\]"):
        TrainingSet(shapes, [0], np.arange(13), None)
    with pytest.raises(ValueError, match="seed: expected 0 or more, got -1"):
        training_set(shapes, seed=-1)
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        make_loader(training_set(shapes), 0)
    with pytest.raises(ValueError, match="workers: expected 0 or more, got -1"):
        make_evaluation_loader(EvaluationSet(shapes, [0], table), 1, workers=-1)
