"""Decoded images in memory, as far as they fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ciss_fast.data.dataset import SegmentationDataset

_MOST_THREADS = 8


class MemoryCache:
    """A data set whose decoded images and label maps stay in memory once loaded.

    Args:
        dataset: the data set.
        max_bytes: once this much is kept, further images are loaded anew each time. Default: no limit.
        progress: called as ``progress(done, total)`` by `keep` after each image it has loaded.

    Loader processes each fill a copy of their own: load with `keep` first, and they share the memory (where
    processes are forked).
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        max_bytes: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        self.dataset = dataset
        self.class_names = dataset.class_names
        self.ids = dataset.ids
        self.root = dataset.root
        self.max_bytes, self.progress = max_bytes, progress
        self.num_bytes = 0
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    @property
    def num_images(self) -> int:
        """Images kept."""
        return len(self._kept)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pair = self.dataset.load(index)
        self._keep(index, pair)
        return pair

    def load_label(self, index: int) -> np.ndarray:
        kept = self._kept.get(index)
        return kept[1] if kept is not None else self.dataset.load_label(index)

    def label_path(self, index: int) -> str | None:
        return self.dataset.label_path(index)

    def image_size(self, index: int) -> tuple[int, int]:
        kept = self._kept.get(index)
        return kept[1].shape if kept is not None else self.dataset.image_size(index)

    def image_bytes(self, index: int) -> int:
        return self.dataset.image_bytes(index)

    def keep(self, indices: Sequence[int], *, load: bool) -> None:
        """Let go of every image but ``indices``; if ``load``, load those that are missing now, until the limit."""
        wanted = {int(index) for index in indices}
        for index in self._kept.keys() - wanted:
            image, label = self._kept.pop(index)
            self.num_bytes -= image.nbytes + label.nbytes
        missing = sorted(wanted - self._kept.keys()) if load else []
        # Decoding runs outside Python's lock.
        pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
        try:
            for done, (index, pair) in enumerate(zip(missing, pool.map(self.dataset.load, missing), strict=True), 1):
                if not self._keep(index, pair):
                    break
                if self.progress is not None:
                    self.progress(done, len(missing))
        finally:
            pool.shutdown(cancel_futures=True)

    def _keep(self, index: int, pair: tuple[np.ndarray, np.ndarray]) -> bool:
        size = sum(array.nbytes for array in pair)
        if self.max_bytes is not None and self.num_bytes + size > self.max_bytes:
            return False
        for array in pair:
            array.flags.writeable = False
        self._kept[index] = pair
        self.num_bytes += size
        return True
