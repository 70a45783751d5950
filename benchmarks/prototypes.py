"""Cases of ``prototypes``: class prototypes of a batch's positions from a memory of features (ALIFE-M, stage 2).

Floors. Operations: the multiply-adds of the correlation, positions x features in memory x dimension. Everything else
(ReLU, the sum over a class's features, the softmax, the weighted sums) comes on top and is not part of the floor.
Traffic: features and memory read once, prototypes written once.

"eager" writes down the correlation of all classes; at ADE20K's sizes it takes 5 GB. "class by class" does the same
one class at a time, with the memory's directions made beforehand for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import ciss_fast

from .case import ON_CPU, Target, Workload

TEMPERATURE = 10.0
Result = tuple[Tensor, Tensor]
Prototypes = Callable[[Tensor, Tensor, Tensor], Result]


def our_prototypes(feature_prev: Tensor, feature_curr: Tensor, memory: Tensor, **options: str) -> Result:
    """As a user asks for them."""
    return ciss_fast.prototypes(feature_prev, feature_curr, memory, TEMPERATURE, **options)


def eager(feature_prev: Tensor, feature_curr: Tensor, memory: Tensor) -> Result:
    """One matrix product for all classes; ReLU in place."""
    feature_prev, feature_curr, memory = feature_prev.float(), feature_curr.float(), memory.float()
    cosine = F.normalize(memory, dim=2).flatten(0, 1) @ F.normalize(feature_prev, dim=1).T
    score = cosine.relu_().view(*memory.shape[:2], -1).sum(dim=1)
    weight = (TEMPERATURE * score).softmax(dim=1)
    return weight @ feature_prev, weight @ feature_curr


def class_by_class(feature_prev: Tensor, feature_curr: Tensor, memory: Tensor) -> Result:
    """A matrix product for every class."""
    feature_prev, feature_curr, memory = feature_prev.float(), feature_curr.float(), memory.float()
    directions = F.normalize(feature_prev, dim=1).T
    score = torch.stack([(vectors @ directions).relu_().sum(dim=0) for vectors in F.normalize(memory, dim=2)])
    weight = (TEMPERATURE * score).softmax(dim=1)
    return weight @ feature_prev, weight @ feature_curr


@dataclass(frozen=True)
class PrototypesCase:
    """One setting. Positions and memory are normal around a centre for every class, behind ReLU."""

    name: str
    positions: int
    classes: int
    per_class: int = 1000
    dimension: int = 256
    feature_type: torch.dtype = torch.float32
    memory_type: torch.dtype = torch.float32
    compiled: bool = False
    compared_with: str | None = None

    @property
    def description(self) -> str:
        parts = [f"{self.positions} positions, memory {self.classes}x{self.per_class}x{self.dimension}"]
        for name, dtype in (("features", self.feature_type), ("memory", self.memory_type)):
            if dtype != torch.float32:
                parts.append(f"{name} {str(dtype).removeprefix('torch.')}")
        return ", ".join(parts)

    def shrunk(self) -> PrototypesCase:
        """A sixteenth of the positions with a tenth of the memory of at most 16 classes."""
        return replace(
            self,
            positions=-(-self.positions // 16),
            classes=min(self.classes, 16),
            per_class=-(-self.per_class // 10),
        )

    def tiny(self) -> PrototypesCase:
        """A few positions and classes."""
        return replace(self, positions=20, classes=2, per_class=15)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Previous and current features and the memory: the same at every call."""
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(self.classes, self.dimension, generator=generator)

        def around(centre: Tensor, *shape: int) -> Tensor:
            return torch.randn(*shape, self.dimension, generator=generator).add_(centre).relu_()

        of_positions = centres[torch.arange(self.positions) % self.classes]
        feature_prev = around(of_positions, self.positions).to(self.feature_type)
        feature_curr = around(of_positions, self.positions).to(self.feature_type)
        memory = around(centres[:, None], self.classes, self.per_class).to(self.memory_type)
        return feature_prev, feature_curr, memory

    def workload(self, target: Target = ON_CPU) -> Workload:
        tensors = tuple(x.to(target.device) for x in self.tensors())
        return Workload(
            candidates={
                "eager": partial(eager, *tensors),
                "ours": partial(our_prototypes, *tensors, **target.options),
                "eager, class by class": partial(class_by_class, *tensors),
            },
            compiled=(lambda: partial(compile_prototypes(eager), *tensors)) if self.compiled else None,
            expected=lambda: ciss_fast.prototypes(*(t.double() for t in tensors), TEMPERATURE, backend="reference"),
            errors=relative_errors,
            allowed={"previous": 1e-3, "current": 1e-3},  # eager's own errors come to some 1e-4
            pixels=self.positions,
            traffic_bytes=sum(t.nbytes for t in tensors) + 2 * 4 * self.classes * self.dimension,
            multiply_adds=self.positions * self.classes * self.per_class * self.dimension,
            details={"pixels": self.positions},
        )


def compile_prototypes(function: Prototypes) -> Prototypes:
    """``function`` through torch.compile, for exactly these shapes and in one graph."""
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)


def relative_errors(result: Result, expected: Result) -> dict[str, float]:
    """Of the prototypes' entries, relative to the largest."""
    return {
        name: float((value.double() - exact).abs().max() / exact.abs().max())
        for name, value, exact in zip(("previous", "current"), result, expected, strict=True)
    }


# A batch of 12 images has 12 x 32 x 32 = 12,288 positions.
_VOC = PrototypesCase("voc", 12288, 16, compiled=True)
_ADE = PrototypesCase("ade", 12288, 101)
CASES = (
    _VOC,
    replace(_VOC, name="voc-one-image", positions=1024, compiled=False, compared_with="voc"),
    replace(_VOC, name="voc-100-features", per_class=100, compiled=False),
    replace(_VOC, name="voc-bfloat16-features", feature_type=torch.bfloat16, compiled=False, compared_with="voc"),
    replace(_VOC, name="voc-bfloat16", feature_type=torch.bfloat16, memory_type=torch.bfloat16, compiled=False,
            compared_with="voc"),
    _ADE,
    replace(_ADE, name="ade-one-image", positions=1024, compared_with="ade"),
)  # fmt: skip
