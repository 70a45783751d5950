"""What a benchmark of an op provides: cases, and for each case the work to be timed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

# One module of this package each, with a sequence CASES and, for cases too large for a CPU, GPU_CASES.
OPS = ("cayley_rotate", "prototypes", "reasoning_loss", "sigmoid_loss", "softmax_loss")


@dataclass(frozen=True)
class Target:
    """Where a case runs: the device of its tensors, and the backend of "ours" (None: the op's own choice)."""

    device: torch.device = torch.device("cpu")
    backend: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """The argument of the op that names the backend."""
        return {} if self.backend is None else {"backend": self.backend}

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


ON_CPU = Target()


@dataclass(frozen=True)
class Workload:
    """One case with its tensors. All callables do the same work and return comparable results.

    Attributes:
        candidates: "eager" and "ours", and more formulations where they are of interest.
        compiled: makes the torch.compile'd form of "eager"; None: not part of this case.
        expected: the float64 reference's result.
        errors: named relative errors of a result (first argument) against the reference's (second).
        allowed: largest acceptable value of each error.
        pixels: label pixels, to compare cases of different size.
        traffic_bytes: what must move between memory and processor: inputs read once, results written once.
        multiply_adds: the operation floor's count (see the op's module); 0: the traffic alone is the floor.
        details: facts about the input worth keeping beside the result.
    """

    candidates: dict[str, Callable[[], Any]]
    compiled: Callable[[], Callable[[], Any]] | None
    expected: Callable[[], Any]
    errors: Callable[[Any, Any], dict[str, float]]
    allowed: dict[str, float]
    pixels: int
    traffic_bytes: int
    multiply_adds: int
    details: dict[str, Any] = field(default_factory=dict)


class Case(Protocol):
    """A named setting of an op. ``compared_with`` names the case whose time per pixel it is set against."""

    name: str
    compared_with: str | None

    @property
    def description(self) -> str: ...

    def workload(self, target: Target = ON_CPU) -> Workload: ...

    def shrunk(self) -> Case:
        """The same at a fraction of its size: shows that everything runs, not how fast."""
        ...

    def tiny(self) -> Case:
        """The same code paths with next to no memory: warms a process up."""
        ...


def load_cases(op: str, target: Target = ON_CPU) -> Sequence[Case]:
    """The cases of one of `OPS`; on a GPU those that are made for one come first."""
    module = importlib.import_module(f"{__package__}.{op}")
    return (*getattr(module, "GPU_CASES", ()), *module.CASES) if target.on_gpu else module.CASES
