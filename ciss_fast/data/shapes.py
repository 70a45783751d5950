"""The embedded data set ``shapes``: textured shapes on cluttered backgrounds, generated in memory.

An image is a pure function of (seed, split, index). It shows one to four objects that may hide each other;
each class has an outline, a texture and a family of colours, and its objects vary in size, place, rotation,
proportions, hue, contrast and pattern. The background is a soft colour field with grain and plain distractors
of any colour. As in Pascal VOC, a border of one pixel around each object is labelled 255.
"""

from __future__ import annotations

import colorsys
import hashlib
import math
from pathlib import Path

import numpy as np
from PIL import Image

from ciss_fast.data.dataset import check_split, register_dataset
from ciss_fast.data.image_files import IGNORE
from ciss_fast.data.shape_drawing import CLASSES, bar, circle
from ciss_fast.errors import ConfigError

# Part of the fingerprint: to be raised when the pictures change.
_VERSION = 1
_SPLIT_CODES = {"train": 0, "val": 1}
_MIN_SIZE = 32


@register_dataset("shapes")
class ShapesDataset:
    """Twelve foreground classes; images are made when first asked for and then kept in memory.

    Args:
        root: None; there are no files.
        split: "train" or "val".
        image_size_px: height and width of the images, at least 32.
        train_images, val_images: number of images of each split.
        seed: at least 0; the splits of one seed differ.
    """

    def __init__(
        self,
        root: Path | None = None,
        split: str = "train",
        *,
        image_size_px: int = 96,
        train_images: int = 600,
        val_images: int = 120,
        seed: int = 0,
    ) -> None:
        if root is not None:
            raise ConfigError(
                f"data set 'shapes' is generated in memory: expected no root folder, got {root}"
            )
        check_split(split)
        for name, value, least in (
            ("image_size_px", image_size_px, _MIN_SIZE),
            ("train_images", train_images, 1),
            ("val_images", val_images, 1),
            ("seed", seed, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"data set 'shapes': {name} is {value!r}; expected a number from {least} up"
                )
        self.root: Path | None = None
        self.split = split
        self.size = image_size_px
        self.seed = seed
        self.class_names = ["background", *(entry[0] for entry in CLASSES)]
        count = train_images if split == "train" else val_images
        self.ids = [f"{split}_{index:05d}" for index in range(count)]
        self._made: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        key = f"shapes {_VERSION} {self.split} {self.size} {len(self)} {self.seed} {self.class_names}"
        return hashlib.sha256(key.encode()).hexdigest()

    def label_path(self, index: int) -> None:
        """There are no files."""
        return None

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] and label map uint8 [H, W], both read-only."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index}; expected 0 to {len(self) - 1}")
        made = self._made.get(index)
        if made is None:
            made = draw_scene(np.random.default_rng([self.seed, _SPLIT_CODES[self.split], index]), self.size)
            for array in made:
                array.flags.writeable = False
            self._made[index] = made
        return made

    def load_label(self, index: int) -> np.ndarray:
        return self.load(index)[1]

    def image_size(self, index: int) -> tuple[int, int]:
        return self.size, self.size

    def image_bytes(self, index: int) -> int:
        """Decoded, as there are no files."""
        return 3 * self.size * self.size


def draw_scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [size, size, 3] and label map uint8 [size, size] drawn from ``rng``."""
    image = _background(rng, size)
    label = np.zeros((size, size), dtype=np.uint8)
    for _ in range(int(rng.integers(2, 6))):
        _draw_distractor(rng, image)
    count = int(rng.choice(4, p=(0.15, 0.3, 0.35, 0.2))) + 1
    for class_id in rng.choice(len(CLASSES), size=count, replace=False) + 1:
        _draw_object(rng, image, label, int(class_id))
    grain = rng.integers(-14, 15, size=(size, size, 1), dtype=np.int16)
    return np.clip(image + grain, 0, 255).astype(np.uint8), label


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Soft field of dull colours with a faint wave pattern, float32 [size, size, 3]."""
    cells = int(rng.integers(3, 8))
    grey = rng.integers(50, 200, size=(cells, cells, 1))
    tint = rng.integers(-30, 31, size=(cells, cells, 3))
    field = Image.fromarray(np.clip(grey + tint, 0, 255).astype(np.uint8))
    image = np.asarray(field.resize((size, size), Image.Resampling.BICUBIC)).astype(np.float32)
    angle, frequency, amplitude = rng.random(3) * (2 * math.pi, 0.8, 16)
    axis = np.arange(size, dtype=np.float32) * np.float32(frequency)
    wave = np.sin(axis[:, None] * math.sin(angle) + axis * math.cos(angle))
    image += (np.float32(amplitude) * wave)[:, :, None]
    return image


def _draw_distractor(rng: np.random.Generator, image: np.ndarray) -> None:
    """A disc or bar of one colour, half transparent; belongs to the background."""
    draws = rng.random(9)
    window, u, v, _ = _local_coordinates(image.shape[0], draws[:5], smallest=0.04, largest=0.16)
    inside = circle(u, v) if draws[5] < 0.5 else bar(u, 1.5 * v)
    colour = np.array(colorsys.hsv_to_rgb(draws[6], draws[7], 0.2 + 0.7 * draws[8]), dtype=np.float32) * 255
    image[window][inside] = 0.4 * image[window][inside] + 0.6 * colour


def _draw_object(rng: np.random.Generator, image: np.ndarray, label: np.ndarray, class_id: int) -> None:
    _, outline, texture, hue = CLASSES[class_id - 1]
    draws = rng.random(12)
    window, u, v, radius = _local_coordinates(image.shape[0], draws[:5], smallest=0.13, largest=0.30)
    inside = outline(u, v)
    first, second = _colours(hue, draws[5:10])
    # At least four pixels a period, or the pattern turns into noise.
    frequency = min(6 + 5 * draws[10], math.pi / 2 * radius)
    pattern = texture(u, v, frequency, 2 * math.pi * draws[11]).astype(np.float32)
    share = pattern[inside][:, None]
    image[window][inside] = share * first + (1 - share) * second
    label[window][_border(inside)] = IGNORE
    label[window][inside] = class_id


def _local_coordinates(
    size: int, draws: np.ndarray, smallest: float, largest: float
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray, float]:
    """Window of the image around a random place, rotated coordinates u, v in units of a random radius, the
    radius.

    ``draws``: five numbers in 0 … 1 for place (two), radius, rotation and proportions. ``smallest`` and
    ``largest`` bound the radius, as fractions of ``size``.
    """
    radius = size * (smallest + (largest - smallest) * draws[2])
    centre_y, centre_x = 0.08 * size + 0.84 * size * draws[:2]
    angle, stretch = 2 * math.pi * draws[3], 0.85 + 0.3 * draws[4]
    reach = 1.3 * radius + 2
    top, bottom = max(0, int(centre_y - reach)), min(size, int(centre_y + reach) + 1)
    left, right = max(0, int(centre_x - reach)), min(size, int(centre_x + reach) + 1)
    y = ((np.arange(top, bottom) - centre_y) / radius).astype(np.float32)[:, None]
    x = ((np.arange(left, right) - centre_x) / radius).astype(np.float32)
    cosine, sine = math.cos(angle), math.sin(angle)
    u, v = (cosine * x + sine * y) * stretch, (cosine * y - sine * x) / stretch
    return np.s_[top:bottom, left:right], u, v, radius


def _colours(hue: float, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two colours (float32 [3], 0 … 255) of an object: one bright, in the class's hue, one dark or pale."""
    hue = (hue + 0.12 * (draws[0] - 0.5)) % 1
    bright = colorsys.hsv_to_rgb(hue, 0.6 + 0.4 * draws[1], 0.75 + 0.25 * draws[2])
    if draws[3] < 0.5:
        other = colorsys.hsv_to_rgb(hue, 0.8, 0.2 + 0.25 * draws[4])
    else:
        other = colorsys.hsv_to_rgb(hue, 0.1 + 0.2 * draws[4], 0.95)
    return np.array(bright, dtype=np.float32) * 255, np.array(other, dtype=np.float32) * 255


def _border(inside: np.ndarray) -> np.ndarray:
    """Pixels outside that touch an inside pixel above, below, left or right."""
    near = np.zeros_like(inside)
    near[1:] |= inside[:-1]
    near[:-1] |= inside[1:]
    near[:, 1:] |= inside[:, :-1]
    near[:, :-1] |= inside[:, 1:]
    return near & ~inside
