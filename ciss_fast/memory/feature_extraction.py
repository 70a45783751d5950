"""Taking the features that a memory keeps from a step's training images (ALIFE, Oh et al. 2022, section 3.3).

The published procedure draws, for each of a class's S features, one of the class's images (with replacement) and a
random crop of it. Here a crop may serve several classes, which saves passes through the network and changes no
class's distribution: every class draws its own images, and the n-th time a class draws image i it gets crop
number n of that image, whichever other classes get the same crop. For each class alone images and crops are
independent draws, as published; only features of different classes that share an image are no longer independent
of each other. A crop is made and passed through the network once however many classes want it, and not passed
through if it shows too little of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ciss_fast.data import StepBatches, TrainingSet
from ciss_fast.data.scan import class_shares
from ciss_fast.errors import DataError
from ciss_fast.memory.class_features import class_mean_features, class_mean_weights

SMALLEST_SHARE = 0.005
"""Published: images and crops count for a class where it covers more than this part of them."""

DRAWS_PER_FEATURE = 20
"""A class gives up once it has drawn this many crops for each feature it should have."""

# Keeps the draws of images apart from other random streams of the same seed.
_DRAWS = 3

Extractor = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class ExtractedFeatures:
    """Features of some classes, and what they came from.

    Attributes:
        features: float32 [K, S, D].
        source_images: different images that features were taken from.
        source_bytes: what keeping these images (without label maps) would take, see `image_bytes` of a data set.
        crops: crops that went through the network.
        notes: what the user should know, a line each.
    """

    features: Tensor
    source_images: int
    source_bytes: int
    crops: int
    notes: tuple[str, ...]


class FeatureExtraction:
    """Takes S features of every class from training images; can be interrupted and go on.

    Args:
        images: the step's training images, augmented as in training. Crop n of an image is what they give in
            epoch n.
        labels: the classes, as they stand in the labels of ``images``.
        features_per_class: S.
        class_names: name of each class, for messages. Default: the labels.
        smallest_share: images count as a class's where it covers more than this part of the whole label map, and
            crops where it covers at least this part. A class without such an image gets half of its largest
            share instead, and a note says so.
        align_corners: how feature maps are enlarged to the label.
        batch_size: crops that go through the network together.
        workers: loader processes; 0 loads in this process.
        progress: called as ``progress(done, total)`` while the label maps are read.

    Raises `DataError` for a class that no image shows.
    """

    def __init__(
        self,
        images: TrainingSet,
        labels: Sequence[int],
        features_per_class: int = 1000,
        *,
        class_names: Sequence[str] | None = None,
        smallest_share: float = SMALLEST_SHARE,
        align_corners: bool = True,
        batch_size: int = 24,
        workers: int = 0,
        progress: Progress | None = None,
    ) -> None:
        if features_per_class < 1:
            raise ValueError(f"features_per_class: expected at least 1, got {features_per_class}")
        self.images, self.labels, self.features_per_class = images, [int(label) for label in labels], features_per_class
        self.align_corners, self.batch_size, self.workers = align_corners, batch_size, workers
        self.names = list(class_names) if class_names is not None else [f"class {label}" for label in labels]
        self.notes: list[str] = []
        shares = class_shares(images.dataset, images.indices, images.label_table, progress)
        self.thresholds = [
            self._threshold(shares[:, label], name, smallest_share)
            for label, name in zip(self.labels, self.names, strict=True)
        ]
        self._crops = [
            self._draw(np.flatnonzero(shares[:, label] > threshold), label)
            for label, threshold in zip(self.labels, self.thresholds, strict=True)
        ]
        self._round = 0
        self._position = 0  # in the round
        self._drawn = [0] * len(self.labels)  # before the round
        self._wanted = [features_per_class] * len(self.labels)  # in the round
        self._found: list[list[Tensor]] = [[] for _ in self.labels]
        self._sources: set[int] = set()
        self._passes = 0

    def _threshold(self, shares: np.ndarray, name: str, smallest_share: float) -> float:
        largest = float(shares.max())
        if largest > smallest_share:
            return smallest_share
        if largest == 0:
            raise DataError(f"{name}: expected training images that show it, got none of {len(shares)}")
        self.notes.append(
            f"{name}: no image shows more than {100 * smallest_share:g} % of it; those with more than "
            f"{50 * largest:.2g} % serve"
        )
        return largest / 2

    def _draw(self, eligible: np.ndarray, label: int) -> np.ndarray:
        """int64 [draws, 2]: the crops a class takes, in order, as (image's position, number of the crop)."""
        draws = DRAWS_PER_FEATURE * self.features_per_class
        rng = np.random.default_rng([self.images.seed, _DRAWS, label])
        positions = eligible[rng.integers(len(eligible), size=draws)]
        # The number of a crop is how often the class has drawn its image before.
        order = np.argsort(positions, kind="stable")
        starts = np.searchsorted(positions[order], positions[order])
        numbers = np.empty(draws, dtype=np.int64)
        numbers[order] = np.arange(draws) - starts
        return np.stack([positions, numbers], axis=1)

    @property
    def num_found(self) -> int:
        """Features found so far, over all classes."""
        return sum(map(len, self._found))

    @property
    def num_wanted(self) -> int:
        """Features to find, over all classes."""
        return self.features_per_class * len(self.labels)

    def state_dict(self) -> dict[str, Any]:
        """Where the extraction stands, from which `load_state_dict` goes on to the same features."""
        return {
            "round": self._round,
            "position": self._position,
            "drawn": list(self._drawn),
            "wanted": list(self._wanted),
            "found": [torch.stack(vectors) if vectors else torch.empty(0, 0) for vectors in self._found],
            "sources": sorted(self._sources),
            "passes": self._passes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict` of an extraction with the same arguments."""
        self._round, self._position, self._passes = state["round"], state["position"], state["passes"]
        self._drawn, self._wanted = list(state["drawn"]), list(state["wanted"])
        self._found = [list(vectors.unbind()) for vectors in state["found"]]
        self._sources = set(state["sources"])

    def run(self, extractor: Extractor) -> Iterator[None]:
        """Pass crops through ``extractor`` until every class has its features; yields once for each feature found.

        The extraction may be left and its `state_dict` be taken at every yield.

        Args:
            extractor: images float32 [B, 3, H, W] to feature maps [B, D, h, w].
        """
        while any(self._wanted):
            for crops in self._batches():
                yield from [None] * self._pass(extractor, crops)
            self._next_round()

    def result(self) -> ExtractedFeatures:
        """The features, once `run` has come to its end.

        A class of which too few crops show enough, after `DRAWS_PER_FEATURE` times S draws, has those it found
        repeated, and a note says so. Raises `DataError` if it has found none.
        """
        notes = list(self.notes)
        features = torch.stack([self._complete(number, notes) for number in range(len(self.labels))])
        source_bytes = sum(self.images.dataset.image_bytes(index) for index in self._sources)
        return ExtractedFeatures(features, len(self._sources), source_bytes, self._passes, tuple(notes))

    def _next_round(self) -> None:
        """What is still missing is drawn in another round, so that no crop is made for nothing."""
        self._drawn = [drawn + wanted for drawn, wanted in zip(self._drawn, self._wanted, strict=True)]
        self._wanted = [
            min(self.features_per_class - len(found), len(crops) - drawn)
            for found, crops, drawn in zip(self._found, self._crops, self._drawn, strict=True)
        ]
        self._round += 1
        self._position = 0

    def _requests(self) -> dict[tuple[int, int], list[int]]:
        """The crops of the round and, by place in ``labels``, the classes that want each."""
        requests: dict[tuple[int, int], list[int]] = {}
        for number, (crops, drawn, wanted) in enumerate(zip(self._crops, self._drawn, self._wanted, strict=True)):
            for position, crop in crops[drawn : drawn + wanted].tolist():
                requests.setdefault((position, crop), []).append(number)
        return requests

    def _batches(self) -> Iterator[list[_Crop]]:
        """The rest of the round's crops that show enough of a class that wants them, in batches."""
        requests = list(self._requests().items())[self._position :]
        if not requests:
            return
        loader = DataLoader(
            self.images,
            batch_size=None,
            sampler=[(number, position) for (position, number), _ in requests],
            num_workers=self.workers,
            generator=torch.Generator().manual_seed(0),
        )
        batch: list[_Crop] = []
        for ((position, _), classes), (image, label) in zip(requests, StepBatches(loader), strict=True):
            self._position += 1
            counts = torch.bincount(label.flatten(), minlength=256) / label.numel()
            shown = [number for number in classes if counts[self.labels[number]] >= self.thresholds[number]]
            if shown:
                batch.append(_Crop(int(self.images.indices[position]), image, label, shown))
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    @torch.no_grad()
    def _pass(self, extractor: Extractor, crops: list[_Crop]) -> int:
        """Take the features of a batch of crops; returns their number."""
        before = self.num_found
        maps = extractor(torch.stack([crop.image for crop in crops]))
        for feature_map, crop in zip(maps, crops, strict=True):
            shown = [self.labels[number] for number in crop.classes]
            label, size = crop.label.to(maps.device), feature_map.shape[-2:]
            weights = class_mean_weights(label, shown, size, self.align_corners)
            for number, vector in zip(crop.classes, class_mean_features(feature_map, weights).cpu(), strict=True):
                self._found[number].append(vector)
            self._sources.add(crop.index)
        self._passes += len(crops)
        return self.num_found - before

    def _complete(self, number: int, notes: list[str]) -> Tensor:
        found, wanted = self._found[number], self.features_per_class
        if not found:
            raise DataError(
                f"{self.names[number]}: expected crops that show at least {100 * self.thresholds[number]:.2g} % of it, "
                f"got none out of {self._drawn[number]}"
            )
        if len(found) < wanted:
            notes.append(
                f"{self.names[number]}: {len(found)} of {self._drawn[number]} crops show enough of it; their "
                f"features are repeated to make {wanted}"
            )
        return torch.stack([found[i % len(found)] for i in range(wanted)])


@dataclass(frozen=True)
class _Crop:
    index: int  # of its image in the data set
    image: Tensor
    label: Tensor
    classes: list[int]  # places in the labels of those it gives a feature
