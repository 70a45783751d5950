"""Transforms of an image together with its label map."""

import numpy as np
import pytest
import torch

from ciss_fast.data import (
    ColourJitter,
    RandomFlip,
    RandomResizedCrop,
    ResizeCentreCrop,
    TrainingTransform,
    denormalise,
    normalise,
)
from ciss_fast.data.transforms import largest_central_crop


def picture(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image whose pixels tell their label (grey value = label), in blocks of random values."""
    rng = np.random.default_rng(seed)
    blocks = rng.choice(np.array([0, 40, 120, 255], dtype=np.uint8), size=(-(-height // 8), -(-width // 8)))
    label = np.kron(blocks, np.ones((8, 8), dtype=np.uint8))[:height, :width]
    return np.repeat(label[:, :, None], 3, axis=2), label


class Scripted:
    """Stands in for a generator: area factors and ratios as given, places at 0."""

    def __init__(self, *uniform: float) -> None:
        self.values = list(uniform)
        self.asked = []

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return self.values.pop(0)

    def integers(self, high: int) -> int:
        return high - 1


def test_crop_boxes_stay_inside_and_keep_area_and_ratio():
    crop, rng = RandomResizedCrop(64), np.random.default_rng(0)
    boxes = np.array([crop.box(100, 120, rng) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 100).all()
    assert (left + width <= 120).all()
    area, ratio = height * width / 12000, width / height
    assert 0.49 < area.min() < 0.52
    assert area.max() <= 1
    assert 0.73 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.35
    # Both ends of the places are reached.
    assert top.min() == left.min() == 0
    assert (top + height).max() == 100
    assert (left + width).max() == 120


def test_crop_takes_the_first_of_ten_tries_that_fits():
    crop = RandomResizedCrop(64)
    scripted = Scripted(*[2.0, 0.0] * 9, 0.5, 0.0)
    assert crop.box(100, 100, scripted) == (29, 29, 71, 71)
    assert len(scripted.asked) == 20
    assert scripted.asked[0] == (0.5, 2.0)
    assert scripted.asked[1] == pytest.approx((np.log(3 / 4), np.log(4 / 3)))
    scripted = Scripted(*[2.0, 0.0] * 10, 0.5, 0.0)
    assert crop.box(100, 100, scripted) == (0, 0, 100, 100)
    assert len(scripted.asked) == 20


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (100, 120, (0, 0, 100, 120)),
        (100, 300, (0, 83, 100, 133)),
        (300, 90, (90, 0, 120, 90)),
        (1, 50, (0, 24, 1, 1)),
    ],
)
def test_largest_central_crop(height, width, expected):
    assert largest_central_crop(height, width, (3 / 4, 4 / 3)) == expected


def test_crop_resizes_labels_to_the_nearest_pixel_and_along_with_the_image():
    image, label = picture(96, 128)
    crop = RandomResizedCrop(80)
    for seed in range(20):
        cropped, cropped_label = crop(image, label, np.random.default_rng(seed))
        assert cropped.shape == (80, 80, 3)
        assert cropped_label.shape == (80, 80)
        assert cropped.dtype == cropped_label.dtype == np.uint8
        assert set(np.unique(cropped_label)) <= set(np.unique(label))
        # Away from the blocks' edges, the image still shows the label's value.
        same = np.abs(cropped[:, :, 0].astype(int) - cropped_label) < 30
        assert same.mean() > 0.8


def test_crop_of_the_right_size_is_cut_out_unchanged():
    image, label = picture(100, 100)
    crop = RandomResizedCrop(71)
    cropped, cropped_label = crop(image, label, Scripted(0.5, 0.0))
    assert np.array_equal(cropped, image[29:, 29:])
    assert np.array_equal(cropped_label, label[29:, 29:])


def test_flip():
    image, label = picture(10, 14)
    rng = np.random.default_rng(0)
    flips = 0
    for _ in range(200):
        flipped, flipped_label = RandomFlip()(image, label, rng)
        if np.array_equal(flipped, image):
            assert np.array_equal(flipped_label, label)
        else:
            flips += 1
            assert np.array_equal(flipped, image[:, ::-1])
            assert np.array_equal(flipped_label, label[:, ::-1])
    assert 70 < flips < 130
    assert np.array_equal(RandomFlip(0.0)(image, label, rng)[0], image)
    assert np.array_equal(RandomFlip(1.0)(image, label, rng)[0], image[:, ::-1])


def test_colour_jitter_changes_colours_only():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    label = rng.integers(0, 21, size=(20, 30), dtype=np.uint8)
    jittered, same = ColourJitter(0.5, 0.5, 0.5)(image, label, rng)
    assert jittered.shape == image.shape
    assert jittered.dtype == np.uint8
    assert not np.array_equal(jittered, image)
    assert same is label
    assert np.array_equal(ColourJitter()(image, label, rng)[0], image)
    darker = ColourJitter(brightness=0.5)(image, label, Scripted(0.5))[0]
    assert np.array_equal(darker, image // 2)


def test_training_transform_is_a_function_of_the_generator():
    image, label = picture(60, 90)
    transform = TrainingTransform(48, colour_jitter=0.4)
    first = transform(image, label, np.random.default_rng(3))
    again = transform(image, label, np.random.default_rng(3))
    other = transform(image, label, np.random.default_rng(4))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_normalise():
    image = np.random.default_rng(0).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)
    tensor = normalise(image)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    expected = ((torch.from_numpy(image).double() / 255 - mean) / std).permute(2, 0, 1)
    torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)
    assert np.array_equal(denormalise(tensor), image)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (64, 64), (33, 100)])
def test_resize_and_centre_crop(height, width):
    image, label = picture(height, width)
    resized, resized_label = ResizeCentreCrop(64)(image, label)
    assert resized.shape == (64, 64, 3)
    assert resized_label.shape == (64, 64)
    assert set(np.unique(resized_label)) <= set(np.unique(label))
    # The centre of the picture stays the centre.
    assert resized_label[32, 32] == label[height // 2, width // 2]


def test_centre_crop_without_resizing():
    image, label = picture(64, 97)
    resized, resized_label = ResizeCentreCrop(64)(image, label)
    assert np.array_equal(resized, image[:, 16:80])
    assert np.array_equal(resized_label, label[:, 16:80])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(0), "size: expected at least 1 pixel, got 0"),
        (lambda: RandomResizedCrop(8, scale=(2.0, 0.5)), "scale: expected 0 < low <= high, got 2.0, 0.5"),
        (lambda: RandomResizedCrop(8, ratio=(0.0, 1.0)), "ratio: expected 0 < low <= high"),
        (lambda: ColourJitter(contrast=1.5), "contrast: expected 0 to 1, got 1.5"),
        (lambda: ResizeCentreCrop(0), "size: expected at least 1 pixel, got 0"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
