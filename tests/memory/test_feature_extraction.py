"""Which crops a class takes its features from, how many, and that an extraction can stop and go on."""

import collections
import io
import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from ciss_fast.data import TrainingSet, TrainingTransform, build_dataset, training_label_table
from ciss_fast.data.tasks import Task
from ciss_fast.errors import DataError
from ciss_fast.memory.feature_extraction import DRAWS_PER_FEATURE, FeatureExtraction

IDENTITY = np.arange(256, dtype=np.uint8)


class Pictures:
    """A data set of given label maps; an image shows its label map, so that features can be traced back."""

    def __init__(self, labels):
        self.labels = [np.asarray(label, dtype=np.uint8) for label in labels]
        self.class_names = [f"c{number}" for number in range(6)]
        self.ids = [str(number) for number in range(len(labels))]
        self.root = None
        self.fingerprint = "pictures"

    def __len__(self):
        return len(self.labels)

    def load(self, index):
        return np.stack([self.labels[index] * 20] * 3, axis=-1), self.labels[index]

    def load_label(self, index):
        return self.labels[index]

    def image_size(self, index):
        return self.labels[index].shape

    def image_bytes(self, index):
        return 1000 + index


def blocks(size, **parts):
    """A label map of background with parts=(class, number of pixels)."""
    label = np.zeros(size * size, dtype=np.uint8)
    start = 0
    for value, pixels in parts.values():
        label[start : start + pixels] = value
        start += pixels
    return label.reshape(size, size)


def pooled(images):
    """A feature extractor: local means of the image and of its square."""
    return functional.avg_pool2d(torch.cat([images, images.square()], dim=1), 8)


@pytest.fixture(scope="module")
def shapes_set():
    """The first step's images of a small task, augmented as in training."""
    dataset = build_dataset("shapes", image_size_px=64, train_images=30)
    task = Task.parse("6-3", class_names=dataset.class_names)
    table = training_label_table(task, 0)
    return TrainingSet(dataset, np.arange(25), table, TrainingTransform(64), seed=5)


def extraction(images, labels, count, **options):
    return FeatureExtraction(images, labels, count, **{"batch_size": 8, **options})


def complete(made, extractor=pooled):
    """Its result after running it to its end."""
    for _ in made.run(extractor):
        pass
    return made.result()


def test_features_are_the_published_ones(shapes_set):
    """One crop after another, with the enlarged map and the mask, for the draws that every class has made."""
    made = extraction(shapes_set, [0, 2, 5], 12)
    result = complete(made)
    assert result.features.shape == (3, 12, 6) and result.features.dtype == torch.float32
    for place, label in enumerate([0, 2, 5]):
        expected = []
        for position, number in made._crops[place].tolist():
            image, crop = shapes_set[number, position]
            mask = crop == label
            if mask.sum() < 0.005 * mask.numel() or len(expected) == 12:
                continue
            enlarged = functional.interpolate(pooled(image[None]), (64, 64), mode="bilinear", align_corners=True)
            expected.append(enlarged[0][:, mask].mean(dim=1))
        expected = torch.stack(expected)
        distance = (result.features[place][:, None] - expected[None]).abs().amax(dim=2)
        assert sorted(distance.argmin(dim=1).tolist()) == list(range(12)), "every one of them once, in some order"
        assert distance.min(dim=1).values.max() < 1e-5


def test_draws_are_uniform_over_the_eligible_images_and_never_repeat_a_crop(shapes_set):
    made = extraction(shapes_set, [0, 3], 1000)
    for crops, label in zip(made._crops, [0, 3], strict=True):
        shares = [(shapes_set.label_table[shapes_set.dataset.load_label(i)] == label).mean() for i in range(25)]
        eligible = {i for i, share in enumerate(shares) if share > 0.005}
        assert len({tuple(crop) for crop in crops.tolist()}) == len(crops) == DRAWS_PER_FEATURE * 1000
        counts = collections.Counter(crops[:, 0].tolist())
        assert set(counts) == eligible
        mean = len(crops) / len(eligible)
        assert all(abs(count - mean) < 5 * mean**0.5 for count in counts.values())
        for position, count in counts.items():
            assert crops[crops[:, 0] == position, 1].tolist() == list(range(count))
    independent = made._crops[0][:50, 0].tolist(), made._crops[1][:50, 0].tolist()
    assert independent[0] != independent[1]


def test_eligible_images_show_more_than_the_smallest_share():
    # 0.5 % of 40 x 40 pixels are 8
    labels = [blocks(40, a=(1, pixels)) for pixels in (7, 8, 9, 100)]
    made = extraction(TrainingSet(Pictures(labels), range(4), IDENTITY, None), [1], 20)
    assert set(made._crops[0][:, 0].tolist()) == {2, 3}
    assert made.notes == []


def test_crops_that_show_too_little_are_skipped_and_never_passed(shapes_set):
    dataset = Pictures([blocks(40, a=(1, 200))] * 3)

    def transform(image, label, rng):
        """Half of the crops show 7 pixels of the class, the others 8, which is enough."""
        label = blocks(40, a=(1, 7 + int(rng.integers(2))))
        return np.stack([label * 20] * 3, axis=-1), label

    seen = []

    def extractor(images):
        seen.append(len(images))
        return functional.adaptive_avg_pool2d(images, 5)

    images = TrainingSet(dataset, range(3), IDENTITY, transform)
    result = complete(extraction(images, [1], 50), extractor)
    assert sum(seen) == result.crops == 50 and max(seen) == 8
    eight = functional.adaptive_avg_pool2d(
        next(image for image, label in (images[n, 0] for n in range(50)) if (label == 1).sum() == 8)[None], 5
    )
    enlarged = functional.interpolate(eight, (40, 40), mode="bilinear", align_corners=True)
    mask = torch.from_numpy(blocks(40, a=(1, 8))) == 1
    assert (result.features[0] - enlarged[0][:, mask].mean(dim=1)).abs().max() < 1e-5


def test_the_same_bits_every_time_and_with_loader_processes(shapes_set):
    first, again = (complete(extraction(shapes_set, [0, 2, 5], 15)) for _ in range(2))
    workers = complete(extraction(shapes_set, [0, 2, 5], 15, workers=2))
    assert torch.equal(first.features, again.features) and torch.equal(first.features, workers.features)
    assert first.crops == again.crops == workers.crops
    other = TrainingSet(shapes_set.dataset, shapes_set.indices, shapes_set.label_table, shapes_set.transform, seed=6)
    assert not torch.equal(first.features, complete(extraction(other, [0, 2, 5], 15)).features)


def test_features_do_not_depend_on_the_other_classes(shapes_set):
    """A crop that serves several classes changes none of them."""
    together = complete(extraction(shapes_set, [0, 2, 5], 15))
    alone = [complete(extraction(shapes_set, [label], 15)) for label in (0, 2, 5)]
    for features, single in zip(together.features, alone, strict=True):
        distance = (features[:, None] - single.features[0][None]).abs().amax(dim=2)
        assert sorted(distance.argmin(dim=1).tolist()) == list(range(15)) and distance.min(dim=1).values.max() < 1e-5
    assert together.crops < sum(single.crops for single in alone)


@pytest.mark.parametrize("stop", [1, 10, 30])
def test_goes_on_where_it_was_interrupted(shapes_set, stop):
    whole = complete(extraction(shapes_set, [0, 2, 5], 15, batch_size=3))
    interrupted, file = extraction(shapes_set, [0, 2, 5], 15, batch_size=3), io.BytesIO()
    for _ in itertools.islice(interrupted.run(pooled), stop):
        pass
    assert stop <= interrupted.num_found < stop + 9
    torch.save(interrupted.state_dict(), file)
    file.seek(0)
    resumed, maps = extraction(shapes_set, [0, 2, 5], 15, batch_size=3), []
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert (resumed.num_found, resumed.num_wanted) == (interrupted.num_found, 45)
    result = complete(resumed, lambda images: maps.append(len(images)) or pooled(images))
    assert torch.equal(result.features, whole.features)
    assert (result.crops, result.source_images, result.source_bytes) == (
        whole.crops, whole.source_images, whole.source_bytes
    )  # fmt: skip
    assert 0 < sum(maps) <= whole.crops - stop // 3


def test_what_the_images_would_take_is_counted_once_an_image():
    dataset = Pictures([blocks(40, a=(1, 200), b=(2, 300)), blocks(40, a=(1, 200)), blocks(40)])
    result = complete(extraction(TrainingSet(dataset, range(3), IDENTITY, None), [1, 2], 30))
    assert (result.source_images, result.source_bytes) == (2, 1000 + 1001)
    assert result.notes == ()


def test_a_class_of_small_objects_gets_a_lower_threshold_and_a_note():
    labels = [blocks(40, a=(1, 500)), blocks(40, a=(1, 500), b=(2, 4)), blocks(40, b=(2, 6)), blocks(40, b=(2, 1))]
    images = TrainingSet(Pictures(labels), range(4), IDENTITY, None)
    made = extraction(images, [1, 2], 10, class_names=["cat", "fly"])
    assert set(made._crops[1][:, 0].tolist()) == {1, 2}
    result = complete(made)
    assert result.features.shape == (2, 10, 6)
    assert result.notes == ("fly: no image shows more than 0.5 % of it; those with more than 0.19 % serve",)


def test_a_class_that_few_crops_show_has_its_features_repeated_and_a_note():
    dataset = Pictures([blocks(40, a=(1, 200))])

    def transform(image, label, rng):
        shown = rng.random() < 0.02
        return image, label if shown else np.zeros_like(label)

    images = TrainingSet(dataset, [0], IDENTITY, transform, seed=1)
    shown = sum(bool((images[n, 0][1] == 1).any()) for n in range(DRAWS_PER_FEATURE * 10))
    assert 0 < shown < 10
    result = complete(extraction(images, [1], 10, class_names=["cat"]))
    assert result.features.shape == (1, 10, 6) and result.crops == shown
    assert result.notes == (
        f"cat: {shown} of 200 crops show enough of it; their features are repeated to make 10",
    )


def test_a_class_that_no_crop_shows():
    images = TrainingSet(
        Pictures([blocks(40, a=(1, 200))]), [0], IDENTITY, lambda image, label, rng: (image, np.zeros_like(label))
    )
    words = "^cat: expected crops that show at least 0.5 % of it, got none out of 60$"
    with pytest.raises(DataError, match=words):
        complete(extraction(images, [1], 3, class_names=["cat"]))


def test_a_class_that_no_image_shows():
    images = TrainingSet(Pictures([blocks(40)]), [0], IDENTITY, None)
    with pytest.raises(DataError, match="^cat: expected training images that show it, got none of 1$"):
        extraction(images, [1], 3, class_names=["cat"])


def test_number_of_features():
    images = TrainingSet(Pictures([blocks(40)]), [0], IDENTITY, None)
    with pytest.raises(ValueError, match="^features_per_class: expected at least 1, got 0$"):
        extraction(images, [0], 0)
