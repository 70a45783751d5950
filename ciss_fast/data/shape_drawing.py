"""Outlines and textures of the classes of the procedural data set.

All functions work on local coordinates: u and v, float32 arrays, where the outline lies within a radius of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]
Texture = Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]


def circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u * u + v * v < 0.72


def square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) < 0.7


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(v, 0.866 * np.abs(u) - 0.5 * v) < 0.5


def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _polar(u, v, 5, lambda wave: 0.5 + 0.42 * np.abs(wave) ** 1.5)


def ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    squared = u * u + v * v
    return (squared < 0.85) & (squared > 0.24)


def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    return (np.maximum(a, b) < 0.9) & (np.minimum(a, b) < 0.3)


def hexagon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    return np.maximum(a, 0.5 * a + 0.866 * b) < 0.8


def crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u * u + v * v < 0.9) & ((u - 0.5) ** 2 + v * v > 0.5)


def bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.abs(u) < 0.95) & (np.abs(v) < 0.36)


def heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u * u + (1.1 * v + 0.25 - 0.75 * np.sqrt(np.abs(u))) ** 2 < 0.6


def half_disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u * u + (v + 0.35) ** 2 < 0.9) & (v > -0.35)


def flower(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _polar(u, v, 3, lambda wave: 0.68 + 0.26 * (2 * wave * wave - 1))


def _polar(
    u: np.ndarray, v: np.ndarray, petals: int, radius: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Inside of the curve radius(cos(petals · angle / 2))."""
    return np.hypot(u, v) < radius(np.cos(np.arctan2(v, u) * (petals / 2)))


def stripes(u: np.ndarray, v: np.ndarray, frequency: float, phase: float) -> np.ndarray:
    return np.sin(frequency * u + phase) > 0


def checks(u: np.ndarray, v: np.ndarray, frequency: float, phase: float) -> np.ndarray:
    return (np.sin(frequency * u + phase) > 0) ^ (np.sin(frequency * v + phase) > 0)


def dots(u: np.ndarray, v: np.ndarray, frequency: float, phase: float) -> np.ndarray:
    return np.sin(frequency * u + phase) + np.sin(frequency * v + phase) > 0.7


def circles(u: np.ndarray, v: np.ndarray, frequency: float, phase: float) -> np.ndarray:
    return np.sin(frequency * np.sqrt(u * u + v * v) + phase) > 0


def waves(u: np.ndarray, v: np.ndarray, frequency: float, phase: float) -> np.ndarray:
    return np.sin(frequency * v + 1.6 * np.sin(0.8 * frequency * u) + phase) > 0


def fade(u: np.ndarray, v: np.ndarray, frequency: float, phase: float) -> np.ndarray:
    del frequency
    return 0.5 + 0.5 * np.sin(1.5 * u + (phase - math.pi))


# Name, outline, texture and hue (0 … 1) of each foreground class, in the order of their ids. Neighbouring
# hues overlap and every texture serves two classes, so that no single cue tells all classes apart.
CLASSES: tuple[tuple[str, Outline, Texture, float], ...] = (
    ("circle", circle, stripes, 0.00),
    ("square", square, dots, 0.33),
    ("triangle", triangle, checks, 0.62),
    ("star", star, fade, 0.14),
    ("ring", ring, checks, 0.83),
    ("cross", cross, waves, 0.48),
    ("hexagon", hexagon, circles, 0.06),
    ("crescent", crescent, dots, 0.74),
    ("bar", bar, fade, 0.40),
    ("heart", heart, waves, 0.92),
    ("half disc", half_disc, stripes, 0.22),
    ("flower", flower, circles, 0.55),
)
