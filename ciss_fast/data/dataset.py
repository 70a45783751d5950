"""What a data set is, and the registry that makes one by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from ciss_fast.errors import ConfigError

SPLITS = ("train", "val")


@runtime_checkable
class SegmentationDataset(Protocol):
    """Images with label maps, in the order of a list.

    Arrays that `load` and `load_label` return may be shared and read-only: copy before changing them.
    """

    class_names: list[str]
    """Index = class id; 0 is the background."""

    ids: list[str]
    """Image ids in list order."""

    root: Path | None
    """Folder of the data; None if there are no files."""

    @property
    def fingerprint(self) -> str:
        """Hash that changes when the list, the classes, the place of a label map below the root or, without files, the
        pictures change.
        """

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] and label map uint8 [H, W] (class ids, 255 = ignored)."""

    def load_label(self, index: int) -> np.ndarray:
        """Label map uint8 [H, W] alone."""

    def label_path(self, index: int) -> str | None:
        """The file of a label map; None if there are no files."""

    def image_size(self, index: int) -> tuple[int, int]:
        """Height and width without decoding."""

    def image_bytes(self, index: int) -> int:
        """Bytes that keeping the image (without its label map) takes: its file's, or decoded without a file."""


Factory = TypeVar("Factory", bound=Callable[..., SegmentationDataset])

_FACTORIES: dict[str, Callable[..., SegmentationDataset]] = {}


def register_dataset(name: str) -> Callable[[Factory], Factory]:
    """Decorator: make ``factory(root, split, **options)`` known to `build_dataset` as ``name``."""

    def register(factory: Factory) -> Factory:
        _FACTORIES[name] = factory
        return factory

    return register


def dataset_names() -> list[str]:
    """The names `build_dataset` knows, sorted."""
    return sorted(_FACTORIES)


def build_dataset(
    name: str, root: str | Path | None = None, split: str = "train", **options: object
) -> SegmentationDataset:
    """Make the data set ``name`` (see `dataset_names`) for ``split`` ("train" or "val").

    ``options`` are the keyword arguments of the data set's class. Raises `ConfigError` for an unknown name,
    split or option, `DataError` for data that is missing or inconsistent.
    """
    check_options(name, options)
    check_split(split)
    return _FACTORIES[name](None if root is None else Path(root), split, **options)


def check_options(name: str, options: Iterable[str]) -> None:
    """Raise `ConfigError` unless there is a data set ``name`` and it has all these ``options``."""
    if name not in _FACTORIES:
        raise ConfigError(f"unknown data set {name!r}: expected one of {', '.join(dataset_names())}")
    known = [
        parameter.name
        for parameter in inspect.signature(_FACTORIES[name]).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"data set {name!r} has no option {option!r}: expected one of {', '.join(known) or 'none'}"
            )


def check_split(split: str) -> None:
    """Raise `ConfigError` unless ``split`` is "train" or "val"."""
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
