"""The feature memory: S features of every class learnt so far, and the file it is kept in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ciss_fast.checked_files import load_checked, save_checked, tensors_digest
from ciss_fast.errors import CheckpointError
from ciss_fast.models import SegmentationModel

FORMAT = 1
_KIND = "feature memory"


@dataclass(frozen=True)
class FeatureMemory:
    """Features to replay (ALIFE, Oh et al. 2022, section 3.3): a few numbers a class instead of its images.

    Attributes:
        features: float32 [K, S, D]: S features of every class, each of D finite numbers.
        class_ids: the K class ids of the data set, in learning order (so row k is the model's channel k).
        step: the features lie in the feature space of the model after this step.
        extractor: fingerprint of that model's feature extractor, see `extractor_fingerprint`.
        source_images: images that the features were taken from. Keeping them instead would have the same
            benefit, as the features could be taken again from any later model.
        source_bytes: what keeping these images (without label maps) would take.

    Raises ValueError for tensors and class ids that do not fit each other, features that are not finite, an
    extractor that is no fingerprint, and a step or counts that are no whole numbers from 0.
    """

    features: Tensor
    class_ids: tuple[int, ...]
    step: int
    extractor: str
    source_images: int = 0
    source_bytes: int = 0

    def __post_init__(self) -> None:
        features = self.features
        if features.dim() != 3 or features.dtype != torch.float32 or 0 in features.shape:
            raise ValueError(f"features: expected float32 [K, S, D], got {features.dtype} {list(features.shape)}")
        if len(self.class_ids) != features.shape[0] or len(set(self.class_ids)) != len(self.class_ids):
            raise ValueError(f"class_ids: expected {features.shape[0]} different ones, got {list(self.class_ids)}")
        finite = torch.isfinite(features).flatten(1).all(dim=1)
        if not finite.all():
            class_id = self.class_ids[int(finite.int().argmin())]
            raise ValueError(f"features: expected finite numbers, those of class {class_id} have others")
        if not isinstance(self.extractor, str) or not self.extractor:
            raise ValueError(f"extractor: expected a fingerprint (text), got {self.extractor!r}")
        for name in ("step", "source_images", "source_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: expected a whole number from 0, got {value!r}")

    @property
    def num_classes(self) -> int:
        return self.features.shape[0]

    @property
    def features_per_class(self) -> int:
        return self.features.shape[1]

    @property
    def dimension(self) -> int:
        return self.features.shape[2]

    @property
    def num_bytes(self) -> int:
        """Size of the features."""
        return self.features.numel() * self.features.element_size()

    def appended(
        self, features: Tensor, class_ids: Sequence[int], source_images: int = 0, source_bytes: int = 0
    ) -> FeatureMemory:
        """A memory with further classes, whose features ([K', S, D]) come from the same model.

        Raises `ValueError` if a class is there already, or S or D differ.
        """
        if features.shape[1:] != self.features.shape[1:]:
            raise ValueError(
                f"features: expected [K, {self.features_per_class}, {self.dimension}], got {list(features.shape)}"
            )
        return dataclasses.replace(
            self,
            features=torch.cat([self.features, features.to(self.features)]),
            class_ids=(*self.class_ids, *class_ids),
            source_images=self.source_images + source_images,
            source_bytes=self.source_bytes + source_bytes,
        )

    def moved(self, features: Tensor, step: int, extractor: str) -> FeatureMemory:
        """The same classes in the feature space of a later model: ``features`` replace these, row by row.

        Raises `ValueError` for another shape.
        """
        if features.shape != self.features.shape:
            raise ValueError(f"features: expected {list(self.features.shape)}, got {list(features.shape)}")
        return dataclasses.replace(self, features=features.to(self.features), step=step, extractor=extractor)

    def mismatch(
        self, *, class_ids: Sequence[int], dimension: int, step: int, extractor: str, features_per_class: int
    ) -> str | None:
        """In what the memory differs from what is wanted, as text for an error; None if it fits."""
        wanted = {
            "step": (self.step, step),
            "classes": (list(self.class_ids), list(class_ids)),
            "feature dimension": (self.dimension, dimension),
            "number of features a class": (self.features_per_class, features_per_class),
            "feature extractor": (self.extractor[:12], extractor[:12]),
        }
        for name, (here, there) in wanted.items():
            if here != there:
                return f"{name}: expected {there}, got {here}"
        return None


def extractor_fingerprint(model: SegmentationModel) -> str:
    """SHA-256 (hexadecimal) of a model's feature extractor: everything but the classifiers.

    Equal for the models after stage 1 and stage 3 of a step, as stage 3 moves classifiers only.
    """
    parts = {"backbone": model.backbone, "aspp": model.aspp, "head": model.head}
    return tensors_digest(
        {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
    )


def save_feature_memory(path: str | Path, memory: FeatureMemory) -> Path:
    """Write a memory in one step: a crash leaves the old file, the new one or none, never half of one."""
    content = {field.name: getattr(memory, field.name) for field in dataclasses.fields(memory)}
    content["class_ids"] = [int(class_id) for class_id in memory.class_ids]
    content["dimension"] = memory.dimension
    return save_checked(path, content, FORMAT)


def load_feature_memory(path: str | Path) -> FeatureMemory:
    """Read a memory to the CPU.

    Raises `CheckpointError` naming the file if it is missing, damaged, not a feature memory, or inconsistent.
    """
    names = [field.name for field in dataclasses.fields(FeatureMemory)]
    content = load_checked(path, _KIND, [*names, "dimension"], FORMAT)
    try:
        memory = FeatureMemory(**{**{name: content[name] for name in names}, "class_ids": tuple(content["class_ids"])})
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a consistent {_KIND}: {error}") from None
    if memory.dimension != content["dimension"]:
        raise CheckpointError(f"{path}: expected features of {content['dimension']} numbers, got {memory.dimension}")
    return memory


def load_fitting_memory(
    path: str | Path, model: SegmentationModel, *, class_ids: Sequence[int], step: int, features_per_class: int
) -> FeatureMemory:
    """Read the memory of exactly these classes in the feature space of ``model``, the model after ``step``.

    Raises `CheckpointError` as `load_feature_memory`, and for a memory that does not fit, saying how.
    """
    memory = load_feature_memory(path)
    problem = memory.mismatch(
        class_ids=class_ids,
        dimension=model.head_channels,
        step=step,
        extractor=extractor_fingerprint(model),
        features_per_class=features_per_class,
    )
    if problem is not None:
        raise CheckpointError(f"{path}: {_KIND} does not fit the model and the task: {problem}")
    return memory


def describe_cost(memory: FeatureMemory) -> str:
    """One line: the memory's size beside that of the images its features were taken from."""
    text = (
        f"feature memory: {memory.num_classes} classes x {memory.features_per_class} features of "
        f"{memory.dimension} numbers, {memory.num_bytes / 1e6:.3g} MB"
    )
    if memory.source_images == 0:
        return text
    return (
        f"{text}; the {memory.source_images} images they were taken from: {memory.source_bytes / 1e6:.3g} MB "
        f"({memory.source_bytes / memory.num_bytes:.1f}x)"
    )
