"""Sums over a single cell, by quadrature and by geometric sequences, against float64.

A 2x2 map enlarged with ``align_corners`` is one cell. Every rule for smooth logits is tried at the largest change
that it serves (``RULE_LIMIT`` in csrc/core/cells.h) and just above it, where the next one takes over.
"""

from __future__ import annotations

import itertools

import pytest
import torch

import ciss_fast
from ciss_fast import native

pytestmark = pytest.mark.skipif(native.library is None, reason="the reference sums every pixel")

RULE_LIMITS = (0.1, 0.7, 1.5, 2.5, 3.8, 6.0, 8.2, 10.4)
CHANGES = (0.0, *(factor * limit for limit in RULE_LIMITS for factor in (0.999, 1.001)), 16.0, 40.0, 200.0)
CENTRES = torch.linspace(-15, 15, 61)


def cell_logits(centre: torch.Tensor, across: float, down: float) -> torch.Tensor:
    """Planes [1, C, 2, 2] that change by ``across`` from left to right and by ``down`` from top to bottom."""
    position = torch.tensor([-0.5, 0.5])
    return centre[None, :, None, None] + across * position + down * position[:, None]


def errors(student: torch.Tensor, teacher: torch.Tensor | None, size: tuple[int, int], **weights: float):
    """Relative error of the total; error of the gradient's entries per pixel of the cell."""
    label = torch.zeros(1, *size, dtype=torch.uint8)
    results = []
    for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
        logits = student.to(dtype).requires_grad_()
        old = None if teacher is None else teacher.to(dtype)
        total, _ = ciss_fast.sigmoid_loss(logits, old, label, align_corners=True, backend=backend, **weights)
        (gradient,) = torch.autograd.grad(total, logits)
        results.append((total.detach().double(), gradient.double()))
    (total, gradient), (exact_total, exact_gradient) = results
    return float((total / exact_total - 1).abs()), float((gradient - exact_gradient).abs().max())


@pytest.mark.parametrize("size", [(16, 16), (17, 8), (5, 17), (11, 13), (3, 16)])
def test_softplus_and_sigmoid(size: tuple[int, int]) -> None:
    for across, down in itertools.product(CHANGES, repeat=2):
        planes = cell_logits(CENTRES, across, down)
        _, gradient_error = errors(planes, None, size, mbce=1.0, ac=1.0)
        assert gradient_error < 5e-7, (across, down)


@pytest.mark.parametrize("size", [(16, 16), (17, 8)])
def test_value_of_every_logit(size: tuple[int, int]) -> None:
    """One plane at a time, so that a small softplus is not hidden by large ones."""
    for centre, across in itertools.product(CENTRES[::3], CHANGES):
        planes = cell_logits(centre[None], across, 0.3 * across)
        value_error, _ = errors(planes, None, size, ac=1.0)
        # Geometric sequences: a product of numbers near 1 keeps fewer digits of a small softplus. The errors of
        # different lines have no common sign, so that a map's is far smaller: see the next test.
        assert value_error < (2e-6 if across < 2 else 3e-5), (float(centre), across)


@pytest.mark.parametrize("centre", [-5.0, -8.0, -12.0, -20.0, -40.0])
def test_value_of_small_softplus(centre: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for deviation in (0.3, 3.0, 10.0):
        planes = centre + deviation * torch.randn(1, 1, 24, 24, generator=generator)
        value_error, _ = errors(planes, None, (16 * 23 + 1, 8 * 23 + 1), ac=1.0)
        assert value_error < 2e-6, deviation


@pytest.mark.parametrize("size", [(16, 16), (17, 8)])
def test_distillation(size: tuple[int, int]) -> None:
    for across, down in itertools.product(CHANGES[::2], repeat=2):
        student = cell_logits(CENTRES, across, down)
        teacher = cell_logits(CENTRES.flip(0) * 0.7, -0.5 * down, across)
        value_error, gradient_error = errors(student, teacher, size, kd=1.0)
        assert value_error < 2e-6, (across, down)
        assert gradient_error < 5e-7, (across, down)
