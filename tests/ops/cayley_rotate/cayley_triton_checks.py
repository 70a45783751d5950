"""Checks of the Triton kernels of `cayley_rotate` (see triton_testing.py)."""

from __future__ import annotations

import math

import torch
from triton_inputs import conftest_of, fill_fresh_memory

import ciss_fast

shared = conftest_of(__file__)
SOLVED_DIRECTLY, NOT_SOLVED = -1, -2


def check(inputs, device: torch.device, *, tolerance: float | None = None) -> list[int]:
    """Rotated vectors and gradients as in `assert_matches` of the other tests; returns the iterations."""
    fill_fresh_memory(device)
    double = torch.float64 in (inputs.params.dtype, inputs.vectors.dtype)
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(inputs.vectors.dtype, 0.0)
    moved = type(inputs)(*(t.to(device) for t in inputs))
    upstream = shared.draw_upstream(inputs)
    result = shared.evaluate(moved, upstream.to(device), backend="triton")
    result = type(result)(*(t.cpu() for t in result))
    for values, argument in zip(result, (inputs.vectors, *inputs), strict=True):
        assert values.dtype == argument.dtype
    shared.assert_close(result, shared.define(inputs), inputs, (tolerance or (1e-11 if double else 2e-6)) + rounding)
    rotated, iterations = ciss_fast.cayley_rotate(*moved, return_iterations=True, backend="triton")
    assert torch.equal(rotated.cpu(), result.rotated) and iterations.dtype == torch.int32
    return iterations.tolist()


def _norms(device: torch.device, dtype: torch.dtype) -> None:
    counts = []
    for norm in (0.0, 0.05, 1.5):
        counts += check(shared.draw_inputs(classes=1, dimension=33, norm=norm, dtype=dtype), device)
    assert counts == sorted(set(counts)) and counts[0] == 1
    counts = check(shared.draw_inputs(classes=1, dimension=48, norm=100.0, dtype=dtype), device)
    assert counts == [SOLVED_DIRECTLY]


def check_norms(device: torch.device) -> None:
    _norms(device, torch.float32)


def slow_check_norms_in_double_precision(device: torch.device) -> None:
    _norms(device, torch.float64)


def check_dimensions(device: torch.device) -> None:
    for dimension, vectors in ((1, None), (2, 9), (3, None), (20, 9)):
        check(shared.draw_inputs(classes=1, dimension=dimension, vectors=vectors, norm=1.0), device)


def slow_check_more_dimensions(device: torch.device) -> None:
    for dimension, vectors in ((1, 9), (2, None), (3, 9), (40, None), (40, 9)):
        check(shared.draw_inputs(classes=1, dimension=dimension, vectors=vectors, norm=1.0), device)


def check_the_dimension_of_networks(device: torch.device) -> None:
    (count,) = check(shared.draw_inputs(classes=1, dimension=256, norm=0.5), device)
    assert 0 < count < 20


def check_few_vectors(device: torch.device) -> None:
    assert min(check(shared.draw_inputs(classes=1, dimension=20, vectors=3, norm=0.3), device)) > 3
    counts = check(shared.draw_inputs(classes=1, dimension=40, vectors=2, norm=60.0), device)
    assert counts == [SOLVED_DIRECTLY]


def check_many_vectors(device: torch.device) -> None:
    for norm, dtype in ((0.5, torch.float32), (100.0, torch.float64)):
        inputs = shared.draw_inputs(classes=1, dimension=33, vectors=40, norm=norm, dtype=dtype)
        assert check(inputs, device) == [SOLVED_DIRECTLY]


def check_orthogonality(device: torch.device) -> None:
    params, _ = shared.draw_inputs(classes=1, dimension=64, norm=100.0)
    axes = torch.eye(64).expand(1, 64, 64)
    rotated = ciss_fast.cayley_rotate(params.to(device), axes.to(device), backend="triton").cpu().double()
    error = rotated @ rotated.transpose(1, 2) - torch.eye(64, dtype=torch.float64)
    assert float(error.abs().max()) <= 1e-5


def check_classes_of_both_kinds(device: torch.device) -> None:
    parts = [shared.draw_inputs(classes=1, dimension=40, norm=norm, seed=int(norm)) for norm in (0.5, 60.0, 1.0)]
    counts = check(type(parts[0])(*(torch.cat(one) for one in zip(*parts, strict=True))), device)
    assert [count == SOLVED_DIRECTLY for count in counts] == [False, True, False]


def check_types(device: torch.device) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        check(shared.draw_inputs(classes=1, dimension=9, norm=1.0, dtype=dtype), device)
    inputs = shared.draw_inputs(classes=1, dimension=9, norm=2.0, dtype=torch.float64)
    check(inputs._replace(params=inputs.params.float()), device, tolerance=1e-7)


def check_strides(device: torch.device) -> None:
    inputs = shared.draw_inputs(classes=2, dimension=9, vectors=2, norm=1.0)
    expected = shared.evaluate(type(inputs)(*(t.to(device) for t in inputs)), backend="triton")
    spread = []
    for tensor in inputs:
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), torch.nan, device=device)
        wide[..., ::2] = tensor.to(device)
        spread.append(wide[..., ::2])
    result = shared.evaluate(type(inputs)(*spread), shared.draw_upstream(inputs).to(device), backend="triton")
    assert all(map(torch.equal, result, expected))


def check_nothing(device: torch.device) -> None:
    for shape in ((0, 8), (0, 3, 8), (3, 0, 8)):
        params = torch.randn(shape[0], 28, device=device, requires_grad=True)
        vectors = torch.ones(shape, device=device, requires_grad=True)
        rotated = ciss_fast.cayley_rotate(params, vectors, backend="triton")
        grad_params, grad_vectors = torch.autograd.grad(rotated.sum(), (params, vectors))
        assert rotated.shape == grad_vectors.shape == shape and (grad_params == 0).all()


def check_scale_and_zeros(device: torch.device) -> None:
    for vectors, norm in ((None, 1.0), (9, 1.0)):
        params, x = (t.to(device) for t in shared.draw_inputs(classes=1, dimension=20, vectors=vectors, norm=norm))
        expected = ciss_fast.cayley_rotate(params, x, backend="triton")
        for scale in (1e-30, 1e30):
            rotated = ciss_fast.cayley_rotate(params, scale * x, backend="triton") / scale
            torch.testing.assert_close(rotated, expected, rtol=1e-5, atol=1e-5)
        assert (ciss_fast.cayley_rotate(params, 0 * x, backend="triton") == 0).all()


def _not_finite(device: torch.device, *cases: tuple[float, int | None, float]) -> None:
    for value, vectors, norm in cases:
        inputs = shared.draw_inputs(classes=3, dimension=20, vectors=vectors, norm=norm)
        clean = ciss_fast.cayley_rotate(*(t.to(device) for t in inputs), backend="triton")
        inputs.params[1, 5] = value
        inputs.vectors[2, ..., 3] = value
        rotated = ciss_fast.cayley_rotate(*(t.to(device) for t in inputs), backend="triton")
        assert torch.equal(rotated[0], clean[0]) and rotated[1:].isnan().all()


def check_not_finite(device: torch.device) -> None:
    _not_finite(device, (math.nan, None, 1.0), (math.inf, 9, 1.0))


def slow_check_not_finite_either(device: torch.device) -> None:
    _not_finite(device, (math.inf, None, 80.0), (math.nan, 9, 1.0))


def check_what_cannot_be_solved(device: torch.device) -> None:
    # Not even in double precision: NaN and a mark, since a GPU is not waited for; the others as ever.
    for vectors in (None, 9):
        params, x = (t.to(device) for t in shared.draw_inputs(classes=2, dimension=31, vectors=vectors, norm=1.0))
        clean = ciss_fast.cayley_rotate(params, x, backend="triton")
        params[1] *= 1e12
        rotated, iterations = ciss_fast.cayley_rotate(params, x, return_iterations=True, backend="triton")
        assert torch.equal(rotated[0], clean[0]) and rotated[1].isnan().all()
        assert iterations[0] != NOT_SOLVED and iterations[1] == NOT_SOLVED


def check_same_bits(device: torch.device) -> None:
    for vectors, norm in ((None, 1.0), (9, 20.0)):
        inputs = shared.draw_inputs(classes=1, dimension=20, vectors=vectors, norm=norm)
        inputs = type(inputs)(*(t.to(device) for t in inputs))
        results = [shared.evaluate(inputs, torch.ones_like(inputs.vectors), backend="triton") for _ in range(2)]
        assert all(map(torch.equal, *results))
