"""Which image shows which class: one pass over the label maps, kept in a file.

An interrupted pass leaves what it has read so far in the file, and the next one goes on from there.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ciss_fast.atomic_files import atomic_write
from ciss_fast.data.dataset import SegmentationDataset

_THREADS = 4
_FOLDER_NAME = ".ciss_fast"
_SECONDS_BETWEEN_SAVES = 30.0


def class_presence(
    dataset: SegmentationDataset,
    cache_folder: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """bool [N, num_classes]: whether image n shows class c (the background is column 0).

    The answer is kept under the data set's fingerprint in ``cache_folder``; by default in ``.ciss_fast``
    beside the data, or, where that cannot be written, in the user's cache folder
    (``$XDG_CACHE_HOME/ciss_fast`` or ``~/.cache/ciss_fast``). A damaged cache file is ignored and replaced; one
    of an interrupted scan, saved when Ctrl-C comes and every half minute, is completed. Data sets without files
    are scanned every time unless ``cache_folder`` is given.

    Args:
        progress: called as ``progress(done, total)`` after each label map that is read; not called when the
            answer comes from the cache.

    Raises `DataError` for the first label map that is missing, damaged, of another size than its image, or
    that holds unknown class ids.
    """
    folders = _cache_folders(dataset, cache_folder)
    # Looked up only where a cache can be: the fingerprint of many files takes a moment.
    name = f"presence-{dataset.fingerprint[:32]}.npz" if folders else ""
    presence = np.zeros((len(dataset), len(dataset.class_names)), dtype=bool)
    done = 0
    for folder in folders:
        known = _read(folder / name, dataset)
        if len(known) > done:
            presence[: len(known)], done = known, len(known)
    if done == len(dataset):
        return presence
    saved = time.monotonic()
    try:
        for counts in _pixels_of_ids(dataset, range(done, len(dataset)), progress, done):
            presence[done] = counts[: presence.shape[1]] > 0
            done += 1
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                _write(folders, name, presence[:done], dataset)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _write(folders, name, presence[:done], dataset)
        raise
    problems = _write(folders, name, presence, dataset)
    if problems:
        warnings.warn(f"class presence is not cached ({problems})", stacklevel=2)
    return presence


def class_shares(
    dataset: SegmentationDataset,
    indices: Sequence[int],
    label_table: np.ndarray,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """float64 [len(indices), 256]: the part of each whole label map that every label covers.

    Labels are what ``label_table`` (uint8 [256], see `training_label_table`) makes of the class ids. Ignored
    pixels count as area. Raises `DataError` as `class_presence` does.
    """
    shares = np.zeros((len(indices), 256))
    for row, counts in zip(shares, _pixels_of_ids(dataset, indices, progress), strict=True):
        row += np.bincount(label_table, weights=counts, minlength=256) / counts.sum()
    return shares


def _pixels_of_ids(
    dataset: SegmentationDataset,
    indices: Sequence[int],
    progress: Callable[[int, int], object] | None,
    before: int = 0,
) -> Iterator[np.ndarray]:
    """int64 [256] for each of the images, in order: its pixels of every id, 255 (ignored) included.

    ``before``: images that count as done already when progress is reported.
    """

    def count(index: int) -> np.ndarray:
        return np.bincount(dataset.load_label(int(index)).ravel(), minlength=256)

    # Decoding runs outside Python's lock and network folders answer slowly: a few threads help either way.
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for done, counts in enumerate(pool.map(count, indices), before + 1):
            yield counts
            if progress is not None:
                progress(done, before + len(indices))
    finally:
        pool.shutdown(cancel_futures=True)


def user_cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ciss_fast``, or ``~/.cache/ciss_fast``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative path is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ciss_fast"


def _cache_folders(dataset: SegmentationDataset, given: str | os.PathLike[str] | None) -> list[Path]:
    """Where to look for the cache, the preferred place first."""
    if given is not None:
        return [Path(given)]
    root = dataset.root
    if root is None:
        return []
    return [root / _FOLDER_NAME, user_cache_folder()]


def _read(path: Path, dataset: SegmentationDataset) -> np.ndarray:
    """The rows that a cache file has, which are the first ones; none if it is missing, damaged or another's."""
    nothing = np.zeros((0, len(dataset.class_names)), dtype=bool)
    try:
        with np.load(path, allow_pickle=False) as stored:
            fingerprint, presence = str(stored["fingerprint"]), stored["presence"]
    # A damaged archive surfaces as almost anything; whatever it is, the cure is to scan again.
    except Exception:
        return nothing
    fits = presence.ndim == 2 and presence.shape[1] == nothing.shape[1] and len(presence) <= len(dataset)
    if fingerprint != dataset.fingerprint or not fits or presence.dtype != np.bool_:
        return nothing
    return presence


def _write(folders: list[Path], name: str, presence: np.ndarray, dataset: SegmentationDataset) -> str:
    """Write the rows known so far to the first folder that can be written; returns why none could, else ""."""
    reasons = []
    for folder in folders:
        try:
            atomic_write(
                folder / name,
                lambda file: np.savez_compressed(
                    file, presence=presence, fingerprint=np.array(dataset.fingerprint)
                ),
            )
            return ""
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or error}")
    return "; ".join(reasons)
