"""From data sets to batches: PyTorch data sets, loaders, reproducible order and randomness."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ciss_fast.data.dataset import SegmentationDataset
from ciss_fast.data.transforms import ResizeCentreCrop, normalise
from ciss_fast.errors import CissFastError, DataError
from ciss_fast.failures import describe_failure, loader_death

Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]

# Numbers that keep the random streams of one seed apart.
_ORDER, _AUGMENTATION = 1, 2


class TrainingSet(Dataset):
    """The images of a step, transformed for training.

    Item ``i`` is an image float32 [3, h, w] (normalised) and a label int64 [h, w] (channels, 255 = ignored).
    What the transform draws is a pure function of (seed, epoch, index in the data set): the same with any
    number of loader processes and in any order. Items are asked for as ``i`` (in the epoch of `set_epoch`, 0
    at first) or as ``(epoch, i)``.

    Args:
        dataset: the images.
        indices: the images of the step, see `select_images`.
        label_table: uint8 [256], class id → label, see `training_label_table`.
        transform: ``transform(image, label, generator)``, for example `TrainingTransform`; None for none.
        seed: at least 0.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        indices: Sequence[int],
        label_table: np.ndarray,
        transform: Transform | None,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.indices = _checked_indices(indices, len(dataset))
        self.label_table = _checked_table(label_table)
        self.transform = transform
        self.seed = _checked_seed(seed)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Epoch of the items that are asked for by number alone."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, position = key if isinstance(key, tuple) else (self.epoch, key)
        index = int(self.indices[position])
        image, label = self.dataset.load(index)
        if self.transform is not None:
            rng = np.random.default_rng([self.seed, _AUGMENTATION, epoch, index])
            image, label = self.transform(image, label, rng)
        return normalise(image), _label_tensor(self.label_table, label)


class EvaluationSet(Dataset):
    """Images for testing, without augmentation: image float32 [3, h, w], label int64 [h, w].

    Args:
        dataset, indices: as `TrainingSet`.
        label_table: see `evaluation_label_table`.
        resize: None: each image at its own size. A number: shorter side resized to it and the central square
            cut out, image and label map alike, as the reference implementations evaluate.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        indices: Sequence[int],
        label_table: np.ndarray,
        resize: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.indices = _checked_indices(indices, len(dataset))
        self.label_table = _checked_table(label_table)
        self.resize = None if resize is None else ResizeCentreCrop(resize)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = self.dataset.load(int(self.indices[position]))
        if self.resize is not None:
            image, label = self.resize(image, label)
        return normalise(image), _label_tensor(self.label_table, label)

    def item_size(self, position: int) -> tuple[int, int]:
        """Height and width of an item, without loading it."""
        if self.resize is not None:
            return self.resize.size, self.resize.size
        return tuple(self.dataset.image_size(int(self.indices[position])))


class EpochSampler:
    """Order of an epoch: a permutation that depends on (seed, epoch) only, given as pairs (epoch, position).

    With ``num_shards`` processes, each takes every ``num_shards``-th entry; so that all get the same number, the
    permutation is continued from its beginning or, with ``drop_rest``, ends earlier.
    """

    def __init__(
        self, length: int, seed: int = 0, shard: int = 0, num_shards: int = 1, drop_rest: bool = False
    ) -> None:
        if not 0 <= shard < num_shards:
            raise ValueError(f"shard: expected 0 to {num_shards - 1}, got {shard}")
        self.length = length
        self.seed = _checked_seed(seed)
        self.shard = shard
        self.num_shards = num_shards
        self.drop_rest = drop_rest

    def __len__(self) -> int:
        return (self.length if self.drop_rest else self.length + self.num_shards - 1) // self.num_shards

    def epoch(self, number: int) -> list[tuple[int, int]]:
        """The entries of an epoch."""
        order = np.random.default_rng([self.seed, _ORDER, number]).permutation(self.length)
        order = np.resize(order, len(self) * self.num_shards)
        return [(number, int(position)) for position in order[self.shard :: self.num_shards]]


class TrainingBatches(Sampler):
    """Batches of an `EpochSampler`'s entries. A last one that is not full is dropped if there is a full one before it.

    An iteration starts with batch ``first_batch`` of ``first_epoch`` and ends with the epoch or, if ``endless``, goes
    on with the next.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.first_epoch, self.first_batch, self.endless = 0, 0, False

    def __len__(self) -> int:
        return max(1, len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in itertools.count(self.first_epoch):
            entries = self.sampler.epoch(epoch)
            for number in range(self.first_batch if epoch == self.first_epoch else 0, len(self)):
                yield entries[number * self.batch_size : (number + 1) * self.batch_size]
            if not self.endless:
                return


class SameSizeBatches(Sampler):
    """Batches of at most ``batch_size`` items of one size each, every item once, in a fixed order; of them every
    ``num_shards``-th from number ``shard`` on.
    """

    def __init__(self, evaluation_set: EvaluationSet, batch_size: int, shard: int = 0, num_shards: int = 1) -> None:
        by_size: dict[tuple[int, int], list[int]] = {}
        for position in range(len(evaluation_set)):
            # One item a batch needs no look at the sizes, which for files means opening each.
            size = evaluation_set.item_size(position) if batch_size > 1 else (0, 0)
            by_size.setdefault(size, []).append(position)
        self.batches = [
            positions[start : start + batch_size]
            for positions in by_size.values()
            for start in range(0, len(positions), batch_size)
        ][shard::num_shards]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class StepBatches:
    """Iterates over the batches (images [B, 3, h, w], labels [B, h, w]) of an epoch.

    Errors of loader processes arrive as the one-line errors they were, and so does the end of such a process. Torch's
    global random state is not touched.
    """

    def __init__(self, loader: DataLoader, batches: TrainingBatches | None = None) -> None:
        self.loader = loader
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration (training batches only; the first is 0)."""
        self.batches.first_epoch, self.batches.first_batch, self.batches.endless = epoch, 0, False

    def endless(self, first: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Epoch after epoch of training batches, without end, from the batch with number ``first`` on. Loader processes
        live as long, and load the first batches of an epoch while the last ones of the epoch before are in use.
        """
        self.batches.first_epoch, self.batches.first_batch = divmod(first, len(self.batches))
        self.batches.endless = True
        return iter(self)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        try:
            yield from self.loader
        except (RuntimeError, EOFError, ConnectionError) as error:
            # A loader process that has died; the last two while it handed over a batch.
            reason = describe_failure(error) if isinstance(error, RuntimeError) else loader_death(type(error).__name__)
            if reason is None:
                raise
            error.__traceback__ = None
            raise DataError(reason) from None
        except CissFastError as error:
            # A loader process wraps the message into a traceback; its last line is "type: message".
            lines = str(error).strip().splitlines()
            if len(lines) == 1:
                raise
            # The traceback would keep the loader in a reference cycle, and its late collection waits five
            # seconds for the loader processes.
            error.__traceback__ = None
            raise type(error)(lines[-1].partition(": ")[2]) from None


def make_loader(
    training_set: TrainingSet,
    batch_size: int,
    *,
    seed: int | None = None,
    workers: int = 0,
    pin_memory: bool = False,
    shard: int = 0,
    num_shards: int = 1,
) -> StepBatches:
    """Training batches in an order that depends on (seed, epoch) only.

    A step with fewer images than ``batch_size`` gives one small batch, see `TrainingBatches`. The batches of several
    processes are together those of a single process with batches as large as theirs together.

    Args:
        batch_size: images per batch and process.
        seed: of the order. Default: that of ``training_set``.
        workers: loader processes; 0 loads in this process.
        shard, num_shards: rank and number of training processes.
    """
    _check_counts(batch_size, workers)
    seed = training_set.seed if seed is None else _checked_seed(seed)
    sampler = EpochSampler(
        len(training_set), seed, shard, num_shards, drop_rest=len(training_set) >= batch_size * num_shards
    )
    batches = TrainingBatches(sampler, batch_size)
    loader = DataLoader(
        training_set,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_requests_to_end,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),
    )
    return StepBatches(loader, batches)


def make_evaluation_loader(
    evaluation_set: EvaluationSet,
    batch_size: int = 1,
    *,
    workers: int = 0,
    pin_memory: bool = False,
    shard: int = 0,
    num_shards: int = 1,
) -> StepBatches:
    """All items once, in batches of items of one size (a batch may be smaller than ``batch_size``); of ``num_shards``
    processes each gets some of the batches.
    """
    _check_counts(batch_size, workers)
    loader = DataLoader(
        evaluation_set,
        batch_sampler=SameSizeBatches(evaluation_set, batch_size, shard, num_shards),
        num_workers=workers,
        worker_init_fn=_outlive_requests_to_end,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(0),
    )
    return StepBatches(loader)


def _outlive_requests_to_end(worker: int) -> None:
    """Batch systems and ``timeout`` send SIGTERM to all processes of a job. Loader processes leave it to the training
    process, which saves and then ends them; they end by themselves too once it is gone.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _label_tensor(table: np.ndarray, label: np.ndarray) -> torch.Tensor:
    if label.dtype != np.uint8:
        raise DataError(f"label map has dtype {label.dtype}; expected uint8")
    return torch.from_numpy(table[label].astype(np.int64))


def _checked_indices(indices: Sequence[int], length: int) -> np.ndarray:
    indices = np.asarray(indices, dtype=np.int64)
    if indices.ndim != 1 or not len(indices):
        raise DataError(f"image indices of shape {list(indices.shape)}; expected a list of at least one")
    if indices.min() < 0 or indices.max() >= length:
        raise DataError(f"image indices from {indices.min()} to {indices.max()}; expected 0 to {length - 1}")
    return indices


def _checked_table(table: np.ndarray) -> np.ndarray:
    if table.shape != (256,) or table.dtype != np.uint8:
        raise ValueError(f"label_table: expected uint8 [256], got {table.dtype} {list(table.shape)}")
    return table


def _checked_seed(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    return int(seed)


def _check_counts(batch_size: int, workers: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if workers < 0:
        raise ValueError(f"workers: expected 0 or more, got {workers}")
