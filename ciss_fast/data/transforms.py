"""Transforms of an image together with its label map, in numpy and Pillow.

Images are uint8 [H, W, 3], label maps uint8 [H, W]. Images are resized bilinearly (with Pillow's antialiasing
when they shrink), label maps always to the nearest pixel, so that no label value appears that was not there.
Sizes are height, width. Random choices come from the generator that is passed in and from nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageEnhance

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crop of random area and aspect ratio, resized to ``size`` x ``size``.

    Up to ten times a crop is drawn whose area is ``scale`` (uniform) times the image's and whose width /
    height is ``ratio`` (uniform in the logarithm); the first that fits inside the image is taken, at a random
    place. If none fits, it is the largest central crop of an allowed ratio.
    """

    size: int
    scale: tuple[float, float] = (0.5, 2.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    tries: int = 10

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: expected at least 1 pixel, got {self.size}")
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name}: expected 0 < low <= high, got {low}, {high}")

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """The crop as top, left, height, width."""
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(self.tries):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(log_low, log_high))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(rng.integers(height - crop_height + 1))
                left = int(rng.integers(width - crop_width + 1))
                return top, left, crop_height, crop_width
        return largest_central_crop(height, width, self.ratio)

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        box = self.box(*label.shape, rng)
        return _resized(image, label, box, (self.size, self.size))


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with the given probability."""

    probability: float = 0.5

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() < self.probability:
            return image[:, ::-1], label[:, ::-1]
        return image, label


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast and saturation, each times a factor uniform in 1 - amount … 1 + amount.

    The amounts are between 0 (off) and 1. The label map stays as it is.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        picture = Image.fromarray(np.ascontiguousarray(image))
        for amount, enhancer in (
            (self.brightness, ImageEnhance.Brightness),
            (self.contrast, ImageEnhance.Contrast),
            (self.saturation, ImageEnhance.Color),
        ):
            if amount:
                picture = enhancer(picture).enhance(rng.uniform(1 - amount, 1 + amount))
        return np.asarray(picture), label


class TrainingTransform:
    """Random-resized crop, flip, and colour jitter if ``colour_jitter`` (an amount, 0 … 1) is not 0."""

    def __init__(
        self,
        crop_size: int,
        *,
        scale: tuple[float, float] = (0.5, 2.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        colour_jitter: float = 0.0,
    ) -> None:
        self.crop = RandomResizedCrop(crop_size, tuple(scale), tuple(ratio))
        self.flip = RandomFlip(flip)
        self.jitter = ColourJitter(colour_jitter, colour_jitter, colour_jitter) if colour_jitter else None

    def __call__(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        image, label = self.flip(*self.crop(image, label, rng), rng)
        return self.jitter(image, label, rng) if self.jitter else (image, label)


@dataclass(frozen=True)
class ResizeCentreCrop:
    """Shorter side resized to ``size``, then the central ``size`` x ``size``: how the references evaluate."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: expected at least 1 pixel, got {self.size}")

    def __call__(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = label.shape
        shorter = min(height, width)
        # Python's integer division truncates the longer side, as torchvision's resize does.
        new_height, new_width = self.size * height // shorter, self.size * width // shorter
        image, label = _resized(image, label, (0, 0, height, width), (new_height, new_width))
        top, left = round((new_height - self.size) / 2), round((new_width - self.size) / 2)
        window = np.s_[top : top + self.size, left : left + self.size]
        return image[window], label[window]


def largest_central_crop(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, left, height, width of the largest centred crop whose width / height lies within ``ratio``."""
    crop_height, crop_width = height, width
    if width / height < ratio[0]:
        crop_height = max(1, min(height, round(width / ratio[0])))
    elif width / height > ratio[1]:
        crop_width = max(1, min(width, round(height * ratio[1])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def normalise(image: np.ndarray) -> torch.Tensor:
    """float32 [3, H, W] from uint8 [H, W, 3]: scaled to 0 … 1, minus ImageNet's mean, by its deviation."""
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
    mean = np.array(IMAGENET_MEAN, dtype=np.float32)[:, None, None]
    std = np.array(IMAGENET_STD, dtype=np.float32)[:, None, None]
    planes *= 1 / (255 * std)
    planes -= mean / std
    return torch.from_numpy(planes)


def denormalise(image: torch.Tensor) -> np.ndarray:
    """uint8 [H, W, 3] from a normalised image [3, H, W]: the inverse of `normalise`, for pictures."""
    planes = image.detach().to("cpu", torch.float32).numpy()
    mean = np.array(IMAGENET_MEAN, dtype=np.float32)[:, None, None]
    std = np.array(IMAGENET_STD, dtype=np.float32)[:, None, None]
    values = np.clip(np.rint((planes * std + mean) * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(values.transpose(1, 2, 0))


def _resized(
    image: np.ndarray, label: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The part ``box`` (top, left, height, width) of both, resized to ``size`` (height, width)."""
    top, left, height, width = box
    window = np.s_[top : top + height, left : left + width]
    image, label = image[window], label[window]
    if (height, width) == size:
        return image, label
    target = (size[1], size[0])
    picture = Image.fromarray(np.ascontiguousarray(image)).resize(target, Image.Resampling.BILINEAR)
    label_map = Image.fromarray(np.ascontiguousarray(label)).resize(target, Image.Resampling.NEAREST)
    return np.asarray(picture), np.asarray(label_map)
