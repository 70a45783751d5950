"""The image memory of DKD-M (Baek et al., NeurIPS 2022): images of earlier steps, in equal parts for all classes.

At every step t >= 1 the memory is chosen anew. Candidates are the training images of step t - 1
(`image_classes` says which classes each counts for) and the images of the memory before. The classes seen so
far take turns, each taking an image that counts for it, until the memory is full. In training an image of the
memory is one image more: its label shows the classes of step t like any other's
(`ciss_fast.data.training_label_table`), its old classes are unlabelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ciss_fast.errors import DataError

_PUBLISHED_SIZES = {"voc": 100, "ade20k": 300}


@dataclass(frozen=True)
class Candidate:
    """An image that may be chosen.

    Attributes:
        image_id: as in the data set's ``ids``.
        classes: foreground class ids it counts for, ascending.
        step: the step whose training set it comes from.
    """

    image_id: str
    classes: tuple[int, ...]
    step: int


@dataclass(frozen=True)
class MemoryImage(Candidate):
    """An image that was chosen, and for which class."""

    chosen_for: int


@dataclass(frozen=True)
class ImageMemory:
    """The images that are replayed at a step.

    Attributes:
        step: the step that replays them, from 1.
        size: number of images that were wanted; there are fewer where candidates ran out.
        dataset: name of the data set.
        fingerprint: that of the data set's training list.
        images: in the order in which they were chosen.
    """

    step: int
    size: int
    dataset: str
    fingerprint: str
    images: tuple[MemoryImage, ...]


def published_memory_size(dataset: str) -> int:
    """How many images DKD-M keeps: 300 for "ade20k", 100 for "voc" and, unpublished, any other data set."""
    return _PUBLISHED_SIZES.get(dataset, _PUBLISHED_SIZES["voc"])


def gather_candidates(
    image_ids: Sequence[str],
    classes: Sequence[tuple[int, ...]],
    step: int,
    carried: Sequence[Candidate] = (),
) -> list[Candidate]:
    """The training images of ``step`` with the classes they count for, then the memory carried so far.

    An image in both is one candidate: it counts for the classes of both and keeps the step it came from first.
    The reference implementation would count it twice and could keep it twice.
    """
    candidates = {
        image_id: Candidate(image_id, tuple(sorted(shown)), step)
        for image_id, shown in zip(image_ids, classes, strict=True)
    }
    for old in carried:
        shown = set(old.classes)
        if old.image_id in candidates:
            shown |= set(candidates[old.image_id].classes)
        candidates[old.image_id] = Candidate(old.image_id, tuple(sorted(shown)), old.step)
    return list(candidates.values())


def select_memory(
    candidates: Sequence[Candidate], class_ids: Sequence[int], size: int, rng: np.random.Generator
) -> tuple[MemoryImage, ...]:
    """Choose up to ``size`` images, each once, the classes taking turns.

    Candidates and classes are shuffled. A class takes the first candidate left that counts for it; one that
    finds none misses its turn. It ends when there are enough images, or none that counts for any class.

    Args:
        class_ids: the classes seen so far; the background (0) has no turn.
        size: at least 0.
        rng: the only source of chance: the same generator state and candidates give the same memory.

    Raises `ValueError` if ``size`` is negative or a candidate repeats.
    """
    if size < 0:
        raise ValueError(f"size: expected at least 0, got {size}")
    if len({candidate.image_id for candidate in candidates}) != len(candidates):
        raise ValueError("candidates: expected each image once")
    shuffled = [candidates[i] for i in rng.permutation(len(candidates))]
    turns = [int(class_id) for class_id in rng.permutation([c for c in class_ids if c != 0])]
    waiting = {
        class_id: iter([candidate for candidate in shuffled if class_id in candidate.classes])
        for class_id in turns
    }
    chosen: dict[str, MemoryImage] = {}
    while len(chosen) < size and waiting:
        for class_id in [class_id for class_id in turns if class_id in waiting]:
            candidate = next((c for c in waiting[class_id] if c.image_id not in chosen), None)
            if candidate is None:
                del waiting[class_id]
            elif len(chosen) < size:
                chosen[candidate.image_id] = MemoryImage(
                    candidate.image_id, candidate.classes, candidate.step, class_id
                )
    return tuple(chosen.values())


def replayed_images(memory: ImageMemory, image_ids: Sequence[str]) -> np.ndarray:
    """Indices (int64, ascending) of the memory's images in ``image_ids``, the data set's ``ids``.

    Raises `DataError` if the memory names an image that the data set does not have.
    """
    index_of = {image_id: index for index, image_id in enumerate(image_ids)}
    unknown = [image.image_id for image in memory.images if image.image_id not in index_of]
    if unknown:
        raise DataError(f"image memory of step {memory.step}: expected ids of the data set, got {unknown[0]!r}")
    return np.array(sorted(index_of[image.image_id] for image in memory.images), dtype=np.int64)
