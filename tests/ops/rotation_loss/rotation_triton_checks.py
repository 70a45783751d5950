"""Checks of the Triton kernels of `rotation_loss` (see triton_testing.py)."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from triton_inputs import conftest_of, fill_fresh_memory

import ciss_fast

shared = conftest_of(__file__)
SOLVED_DIRECTLY, NOT_SOLVED = -1, -2


def check(fit, device: torch.device, *, tolerance: float | None = None) -> list[int]:
    """Loss, terms and gradient as in `assert_matches` of the other tests; returns the products."""
    fill_fresh_memory(device)
    moved = shared.Fit(*(tensor.to(device) for tensor in fit[:5]), fit.fidelity_weight)
    double = any(tensor.dtype == torch.float64 for tensor in fit[:5])
    shared.assert_matches(moved, tolerance=tolerance or (1e-11 if double else 2e-5), backend="triton")
    return torch.ops.ciss_fast.rotation_loss(*moved, True, backend="triton")[2].tolist()


def check_sizes(device: torch.device) -> None:
    for scale, classes, dimension, groups, outputs in (
        *((0.05, 1, 2, None, 1), (1.5, 2, 3, 2, 2), (0.05, 3, 17, None, 16)),
        *((0.05, 17, 2, None, 17), (0.1, 1, 40, 2, 33)),
    ):
        fit = shared.draw_fit(classes=classes, dimension=dimension, groups=groups, outputs=outputs, scale=scale)
        assert min(check(fit, device)) >= 0  # one class is its own mean: nothing to solve


def check_double_precision(device: torch.device) -> None:
    fit = shared.draw_fit(classes=2, dimension=9, groups=2)
    check(fit.to(torch.float64), device)
    check(fit._replace(bias=fit.bias.double()), device, tolerance=1e-6)


def check_the_dimension_of_networks(device: torch.device) -> None:
    (count,) = check(shared.draw_fit(classes=1, dimension=256, outputs=21, scale=0.1), device)
    assert 0 < count < 40


def check_weights_and_types(device: torch.device) -> None:
    fit = shared.draw_fit(classes=2, dimension=9)
    for weight in (0.0, 1.0):
        check(fit._replace(fidelity_weight=weight), device)
    half = fit._replace(previous=fit.previous.bfloat16(), current=fit.current.half(), weight=fit.weight.bfloat16())
    check(half._replace(params=fit.params.t().contiguous().t()), device)


def check_elimination(device: torch.device) -> None:
    for dtype in (torch.float32, torch.float64):
        fit = shared.draw_fit(classes=2, dimension=32, scale=40.0).to(dtype)
        assert check(fit, device, tolerance=5e-5 if dtype == torch.float32 else 1e-9) == [SOLVED_DIRECTLY] * 2
    params = fit.params.float()
    params[0] /= 100
    counts = check(shared.Fit(params, *(tensor.float() for tensor in fit[1:5])), device, tolerance=5e-5)
    assert counts[0] > 0 and counts[1] == SOLVED_DIRECTLY


def check_large_logits_and_vanishing_prototypes(device: torch.device) -> None:
    fit = shared.draw_fit(classes=3, dimension=9)
    check(fit._replace(weight=1e3 * fit.weight, fidelity_weight=0.0), device, tolerance=1e-4)
    for size in (1e-6, 1e6):
        scaled = fit._replace(previous=size * fit.previous, current=size * fit.current, weight=fit.weight / size)
        check(scaled, device)
    check(fit._replace(previous=fit.previous[:1].expand_as(fit.previous)), device)


def check_not_finite(device: torch.device) -> None:
    for value, scale in ((math.nan, 0.5), (math.inf, 40.0)):
        fit = shared.draw_fit(classes=3, dimension=9, outputs=5, scale=scale)
        fit = shared.Fit(*(tensor.to(device) for tensor in fit[:5]))
        clean = shared.evaluate(fit, backend="triton")
        params = fit.params.clone()
        params[1, 3] = value
        result = shared.evaluate(fit._replace(params=params), backend="triton")
        assert result.total.isnan() and result.gradient[1].isnan().all()
        assert torch.equal(result.gradient[[0, 2]], clean.gradient[[0, 2]])
        for name in ("previous", "current", "weight", "bias") if scale < 1 else ("current",):
            broken = getattr(fit, name).clone()
            broken.view(-1)[0] = value
            result = shared.evaluate(fit._replace(**{name: broken}), backend="triton")
            assert result.total.isnan() or result.total.isinf(), name
            assert not result.gradient.isfinite().all(), name


def check_what_cannot_be_solved(device: torch.device) -> None:
    fit = shared.draw_fit(classes=2, dimension=33)  # odd: one of S's eigenvalues is 0
    fit.params[1] *= 1e12
    fit = shared.Fit(*(tensor.to(device) for tensor in fit[:5]))
    total, _, products, gradient = torch.ops.ciss_fast.rotation_loss(*fit, True, backend="triton")
    assert products[0] > 0 and products[1] == NOT_SOLVED
    assert total.isnan() and gradient[1].isnan().all() and gradient[0].isfinite().all()


def check_without_gradient_and_same_bits(device: torch.device) -> None:
    fit = shared.draw_fit(classes=2, dimension=9, groups=2)
    fit = shared.Fit(*(tensor.to(device) for tensor in fit[:5]))
    total, _, products, gradient = torch.ops.ciss_fast.rotation_loss(*fit, False, backend="triton")
    both = torch.ops.ciss_fast.rotation_loss(*fit, True, backend="triton")
    assert gradient.numel() == 0 and torch.equal(total, both[0]) and (both[2] > products).all()
    again = torch.ops.ciss_fast.rotation_loss(*fit, True, backend="triton")
    assert all(map(torch.equal, both, again))
    assert not ciss_fast.rotation_loss(*fit, backend="triton")[0].requires_grad


def check_golden_values(device: torch.device) -> None:
    variable = os.environ.get("CISS_FAST_SHARED")
    folder = Path(variable) if variable else Path(__file__).resolve().parents[4] / "shared"
    if not variable and not folder.is_dir():
        pytest.skip(f"no folder of golden data at {folder} (CISS_FAST_SHARED names another place)")
    for name in ("cayley_small", "cayley_256_init"):
        shared.assert_golden(folder / "golden" / f"{name}.npz", device, backend="triton")
