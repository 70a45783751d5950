"""Random logits, the enlargement written out in double precision, and comparison of label maps with it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from interpolation import bilinear_matrix
from torch import Tensor

import ciss_fast
from ciss_fast import native

# A kernel's logit may be off by a few roundings of its arithmetic, relative to the largest logit.
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6, torch.float64: 1e-14}
KINDS = ("softmax", "sigmoid")


def draw_logits(
    classes: int, size: tuple[int, int], *, batch: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Tensor:
    """Normal logits of deviation 3: [batch, classes, *size]."""
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64)).to(dtype)


def enlarge_exactly(logits: Tensor, size: tuple[int, int], kind: str, align_corners: bool) -> Tensor:
    """What the classes are compared by, [B, C, H, W] in double precision; for sigmoid, background counts 0."""
    rows = bilinear_matrix(logits.shape[2], size[0], align_corners)
    columns = bilinear_matrix(logits.shape[3], size[1], align_corners)
    enlarged = rows @ logits.detach().double() @ columns.T
    if kind == "sigmoid":
        enlarged[:, 0] = 0
    return enlarged


def assert_same_labels(labels: Tensor, logits: Tensor, size: tuple[int, int], kind: str, align_corners: bool) -> None:
    """``labels`` are those of the definition in double precision, except where classes tie within rounding."""
    batch, classes = logits.shape[:2]
    assert labels.shape == (batch, *size)
    assert labels.dtype == (torch.uint8 if classes <= 256 else torch.int64)
    options = {"kind": kind, "align_corners": align_corners, "backend": "reference"}
    expected = ciss_fast.predict(logits.detach().double(), size, **options)
    enlarged = enlarge_exactly(logits, size, kind, align_corners)
    scale = float(logits.detach().abs().max())
    highest = enlarged.amax(dim=1)
    for name, chosen, rounding in (("definition", expected, 1e-13), ("labels", labels, ROUNDING[logits.dtype])):
        shortfall = highest - enlarged.gather(1, chosen.long().unsqueeze(1)).squeeze(1)
        assert float(shortfall.max()) <= rounding * scale, f"{name}: a class whose logit is not the largest"
    differ = labels.long() != expected.long()
    if differ.any():
        gap = highest - enlarged.topk(2, dim=1).values[:, 1]
        assert float(gap[differ].max()) <= ROUNDING[logits.dtype] * scale, "labels differ without a tie"


def assert_agrees(logits: Tensor, size: tuple[int, int]) -> None:
    """The kernel's labels are the definition's, for both families and both alignments."""
    for kind, align_corners in product(KINDS, (False, True)):
        labels = ciss_fast.predict(logits, size, kind=kind, align_corners=align_corners, backend="cpu")
        assert_same_labels(labels, logits, size, kind, align_corners)


@pytest.fixture(scope="session")
def label_map_logits() -> Callable[..., Tensor]:
    """Function that draws logits: see `draw_logits`."""
    return draw_logits


@pytest.fixture(scope="session")
def label_map_enlarge() -> Callable[..., Tensor]:
    """Function that enlarges in double precision: see `enlarge_exactly`."""
    return enlarge_exactly


@pytest.fixture(scope="session")
def same_labels() -> Callable[..., None]:
    """Function that compares labels with the definition: see `assert_same_labels`."""
    return assert_same_labels


@pytest.fixture(scope="session")
def kernel() -> None:
    """Skips what needs the compiled kernels where they are missing."""
    if native.library is None:
        pytest.skip(f"no compiled kernels: {native.unavailable_reason}")


@pytest.fixture(scope="session")
def kernel_agrees(kernel: None) -> Callable[..., None]:
    """Function that compares the kernel with the definition: see `assert_agrees`."""
    return assert_agrees


@pytest.fixture(params=["cpu", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend by name; the compiled one is skipped where it is missing."""
    if request.param == "cpu":
        request.getfixturevalue("kernel")
    return request.param
