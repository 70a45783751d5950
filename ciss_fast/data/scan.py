"""Which image shows which class: one pass over the label maps, kept in a file.

The file has a row for every label map: its size and time of change, a hash of its content, and the classes it shows. A
map with another time has its content hashed again, and is read again if that has changed. An interrupted pass leaves
the rows that it has, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ciss_fast.atomic_files import atomic_write
from ciss_fast.data.dataset import SegmentationDataset
from ciss_fast.errors import DataError

_THREADS = 4
_FOLDER_NAME = ".ciss_fast"
_SECONDS_BETWEEN_SAVES = 30.0
_DIGEST_BYTES = 16
_UNKNOWN = -1


@dataclass(frozen=True)
class ClassScan:
    """What a pass over a data set's label maps has found.

    Attributes:
        presence: bool [N, num_classes]: whether image n shows class c (the background is column 0).
        fingerprint: hash of the list, the classes, what the label maps hold and how large the images' files are. Where
            the files lie and when they were written make no difference.
    """

    presence: np.ndarray
    fingerprint: str


def scan_classes(
    dataset: SegmentationDataset,
    cache_folder: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> ClassScan:
    """Read all label maps, or as many as a pass before has not read, or that have changed since.

    The answer is kept in ``cache_folder``; by default in ``.ciss_fast`` beside the data, or, where that cannot be
    written, in the user's cache folder (``$XDG_CACHE_HOME/ciss_fast`` or ``~/.cache/ciss_fast``). A damaged cache file
    is ignored and replaced; one of an interrupted scan, saved when Ctrl-C comes and every half minute, is completed.
    Data sets without files are scanned every time unless ``cache_folder`` is given.

    Args:
        progress: called as ``progress(done, total)`` after each label map that is read; not called when the
            answer comes from the cache.

    Raises `DataError` for the first label map that is missing, damaged, of another size than its image, or
    that holds unknown class ids.
    """
    folders = _cache_folders(dataset, cache_folder)
    name = f"presence-{dataset.fingerprint[:32]}.npz"
    rows = _Rows(len(dataset), len(dataset.class_names))
    for folder in folders:
        known = _read(folder / name, dataset)
        if known is not None and known.count > rows.count:
            rows = known
    changed = rows.forget_changed(dataset)
    missing = np.flatnonzero(rows.size == _UNKNOWN)
    saved = time.monotonic()
    try:
        for index, counts in zip(missing, _pixels_of_ids(dataset, missing, progress, rows.count), strict=True):
            rows.set(int(index), dataset, counts)
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                _write(folders, name, rows, dataset)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _write(folders, name, rows, dataset)
        raise
    if changed or len(missing):
        problems = _write(folders, name, rows, dataset)
        if problems and len(missing):
            warnings.warn(f"class presence is not cached ({problems})", stacklevel=2)
    return ClassScan(rows.presence, _content_fingerprint(dataset, rows))


def class_presence(
    dataset: SegmentationDataset,
    cache_folder: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> np.ndarray:
    """bool [N, num_classes]: whether image n shows class c; see `scan_classes`."""
    return scan_classes(dataset, cache_folder, progress=progress).presence


class _Rows:
    """What is known about every label map: arrays of one length. ``size`` is `_UNKNOWN` where nothing is."""

    NAMES = ("size", "changed_ns", "digest", "presence")

    def __init__(self, length: int, num_classes: int) -> None:
        self.size = np.full(length, _UNKNOWN, dtype=np.int64)
        self.changed_ns = np.zeros(length, dtype=np.int64)
        self.digest = np.zeros((length, _DIGEST_BYTES), dtype=np.uint8)
        self.presence = np.zeros((length, num_classes), dtype=bool)

    @property
    def count(self) -> int:
        return int((self.size != _UNKNOWN).sum())

    def set(self, index: int, dataset: SegmentationDataset, counts: np.ndarray) -> None:
        """Fill a row; ``counts``: int64 [256], pixels of every id."""
        path = dataset.label_path(index)
        if path is None:
            self.size[index] = 0
        else:
            self.size[index], self.changed_ns[index] = _status(path)
            self.digest[index] = _digest(path)
        self.presence[index] = counts[: self.presence.shape[1]] > 0

    def forget_changed(self, dataset: SegmentationDataset) -> bool:
        """Make the rows unknown whose files hold something else by now; returns whether any row has changed, if only
        in its time.
        """
        suspects = []
        for index in np.flatnonzero(self.size != _UNKNOWN):
            path = dataset.label_path(int(index))
            if path is None:
                continue
            size, changed_ns = _status(path)
            if size != self.size[index]:
                self.size[index] = _UNKNOWN
                suspects.append((index, path, None))
            elif changed_ns != self.changed_ns[index]:
                suspects.append((index, path, changed_ns))
        with ThreadPoolExecutor(_THREADS) as pool:
            digests = pool.map(_digest, [path for _, path, changed_ns in suspects if changed_ns is not None])
            for index, _, changed_ns in suspects:
                if changed_ns is None:
                    continue
                self.changed_ns[index] = changed_ns
                if not np.array_equal(next(digests), self.digest[index]):
                    self.size[index] = _UNKNOWN
        return bool(suspects)


def _status(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and time of change of a label map's file."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: label map missing; expected a readable file") from error
    return status.st_size, status.st_mtime_ns


def _digest(path: str | os.PathLike[str]) -> np.ndarray:
    """uint8 [16]: hash of a file's content."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: label map unreadable; expected a readable file") from error
    return np.frombuffer(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest(), dtype=np.uint8)


def _content_fingerprint(dataset: SegmentationDataset, rows: _Rows) -> str:
    digest = hashlib.sha256()
    for name in dataset.class_names:
        digest.update(f"class\0{name}\n".encode())
    for index, image_id in enumerate(dataset.ids):
        if dataset.label_path(index) is None:
            return dataset.fingerprint
        digest.update(f"{image_id}\0{dataset.image_bytes(index)}\n".encode())
    digest.update(rows.digest.tobytes())
    return digest.hexdigest()


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


def _read(path: Path, dataset: SegmentationDataset) -> _Rows | None:
    """The content of a cache file; None if it is missing, damaged or another's."""
    rows = _Rows(len(dataset), len(dataset.class_names))
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != dataset.fingerprint:
                return None
            for name in _Rows.NAMES:
                array, expected = stored[name], getattr(rows, name)
                if array.shape != expected.shape or array.dtype != expected.dtype:
                    return None
                setattr(rows, name, array)
    # A damaged archive surfaces as almost anything; whatever it is, the cure is to scan again.
    except Exception:
        return None
    return rows


def _write(folders: list[Path], name: str, rows: _Rows, dataset: SegmentationDataset) -> str:
    """Write the rows known so far to the first folder that can be written; returns why none could, else ""."""
    arrays = {name: getattr(rows, name) for name in _Rows.NAMES}
    reasons = []
    for folder in folders:
        try:
            atomic_write(
                folder / name,
                lambda file: np.savez_compressed(file, **arrays, fingerprint=np.array(dataset.fingerprint)),
            )
            return ""
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or error}")
    return "; ".join(reasons)
