"""The CUDA kernels of the rotations, emulated on the CPU, against the definition in double precision."""

from __future__ import annotations

import pytest
import torch

from ciss_fast.ops.cayley_rotate.cuda_launch import NOT_SOLVED, cayley_rotate, cayley_rotate_backward
from ciss_fast.ops.cayley_rotate.reference import cayley_rotate_reference

pytestmark = pytest.mark.usefixtures("emulated_cuda")

SOLVED_DIRECTLY = -1


def draw(classes: int, dimension: int, scale: float, vectors: int | None = None, seed: int = 0):
    """Parameters whose S has a spectral norm of about ``scale``, vectors, and a gradient on the result."""
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randn(classes, dimension * (dimension - 1) // 2, generator=generator)
    params = entries * (scale / dimension**0.5)
    shape = (classes, dimension) if vectors is None else (classes, vectors, dimension)
    return params, torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def forward_and_backward(params, vectors, upstream):
    """Rotated vectors, gradients on parameters and vectors, and the iterations."""
    rotated, solutions, factors, iterations = cayley_rotate(params, vectors, True)
    grad_params, grad_vectors = cayley_rotate_backward(params, solutions, factors, iterations, upstream, True)
    return rotated, grad_params, grad_vectors, iterations


def check(params, vectors, upstream, accuracy: float = 2e-6) -> torch.Tensor:
    """Compare with the definition; returns the iterations."""
    results = forward_and_backward(params, vectors, upstream)
    leaves = params.double().requires_grad_(), vectors.double().requires_grad_()
    rotated = cayley_rotate_reference(*leaves)
    expected = rotated.detach(), *torch.autograd.grad(rotated, leaves, upstream.double())
    for result, right in zip(results[:3], expected, strict=True):
        assert result.shape == right.shape
        if right.numel():
            size = right.norm(dim=-1, keepdim=True) if result.shape == vectors.shape else right.abs().max()
            assert ((result.double() - right).abs() <= accuracy * size).all()
    return results[3]


@pytest.mark.parametrize("dimension", [1, 2, 3, 31, 48, 65])
@pytest.mark.parametrize("scale", [0.05, 2.0])
def test_dimensions(nan_filled, dimension, scale) -> None:
    iterations = check(*draw(2, dimension, scale), accuracy=1e-5)
    assert (iterations > 0).all()


@pytest.mark.parametrize("shared", [None, "101376"])
def test_published_dimension(monkeypatch, shared) -> None:
    # The triangle of D = 256 in shared memory, and read from where it lies: compute capability 8.6, 8.9, 12.0 (99 KiB).
    if shared:
        monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", shared)
    iterations = check(*draw(1, 256, 1.0))
    assert 5 < int(iterations[0]) < 40


def test_dimension_beyond_a_block() -> None:
    check(*draw(1, 300, 0.5))


@pytest.mark.parametrize("scale", [100.0, 1000.0])
@pytest.mark.parametrize("vectors", [None, 3])
def test_elimination(nan_filled, scale, vectors) -> None:
    iterations = check(*draw(2, 64, scale, vectors), accuracy=2e-5)
    assert scale < 1000 or (iterations == SOLVED_DIRECTLY).all()


def test_classes_of_both_kinds() -> None:
    params, vectors, upstream = draw(3, 64, 1.0)
    params[1] *= 500
    iterations = check(params, vectors, upstream, accuracy=2e-5)
    assert iterations[0] > 0 and iterations[1] == SOLVED_DIRECTLY and iterations[2] > 0
    params[1, 0] = float("nan")
    rotated, grad_params, grad_vectors, _ = forward_and_backward(params, vectors, upstream)
    for result in (rotated, grad_params, grad_vectors):
        assert result[1].isnan().all() and result[[0, 2]].isfinite().all()


def test_more_classes_than_slots() -> None:
    iterations = check(*draw(68, 40, 5000.0), accuracy=2e-4)  # a gradient of products that nearly cancel
    assert (iterations[64:] == SOLVED_DIRECTLY).any()


@pytest.mark.parametrize("vectors", [1, 8, 9, 40])
def test_vectors(nan_filled, vectors) -> None:
    check(*draw(2, 33, 1.0, vectors), accuracy=1e-5)


def test_blocks_lie_along_x(monkeypatch, tmp_path) -> None:
    # A card takes 65,535 of them along y, which a memory of a million vectors would exceed.
    monkeypatch.setenv("CISS_FAST_EMULATION_LOG", str(tmp_path / "launches"))
    cayley_rotate(*draw(2, 8, 1.0, 40)[:2], False)
    name, blocks, along_y = (tmp_path / "launches").read_text().splitlines()[0].split()[:3]
    assert (name, int(blocks), int(along_y)) == ("cayley_krylov", 2 * 3, 1)


@pytest.mark.parametrize("scale", [1.0, 500.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vector_that_is_not_finite(scale, value) -> None:
    params, vectors, _ = draw(2, 32, scale, 3)
    vectors[1, 1, 5] = value
    vectors[0, 2] = 0
    rotated = cayley_rotate(params, vectors, False)[0]
    assert rotated[1, 1].isnan().all() and torch.count_nonzero(rotated[0, 2]) == 0
    rotated[1, 1] = 0
    assert rotated.isfinite().all()


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_vectors_of_any_size(factor) -> None:
    params, vectors, upstream = draw(2, 32, 1.0)
    plain = cayley_rotate(params, vectors, False)[0]
    torch.testing.assert_close(cayley_rotate(params, vectors * factor, False)[0] / factor, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dimension", "vectors"), [(64, None), (33, 20)])
def test_what_cannot_be_solved_is_not_a_number(dimension, vectors) -> None:
    params, vectors, upstream = draw(1, dimension, 1e12, vectors)
    rotated, grad_params, grad_vectors, iterations = forward_and_backward(params, vectors, upstream)
    assert iterations.tolist() == [NOT_SOLVED]
    for result in (rotated, grad_params, grad_vectors):
        assert result.isnan().all()


@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_order_of_threads(monkeypatch, scale) -> None:
    # A barrier that is missing shows as a result that depends on which thread runs first.
    arguments = draw(1, 40, scale, 2)
    for shared in ("232448", "30000"):
        monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", shared)
        ascending = forward_and_backward(*arguments)
        monkeypatch.setenv("CISS_FAST_EMULATION_ORDER", "descending")
        for one, other in zip(forward_and_backward(*arguments), ascending, strict=True):
            assert torch.equal(one, other)
        monkeypatch.delenv("CISS_FAST_EMULATION_ORDER")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types(dtype) -> None:
    params, vectors, upstream = draw(2, 32, 1.0)
    rotated, _, grad_vectors, _ = forward_and_backward(params, vectors.to(dtype), upstream.to(dtype))
    assert rotated.dtype == grad_vectors.dtype == dtype
    expected = cayley_rotate_reference(params, vectors.to(dtype).double())
    torch.testing.assert_close(rotated.double(), expected, rtol=2**-8, atol=1e-3)


def test_empty() -> None:
    params, vectors, upstream = draw(2, 8, 1.0, 0)
    _, grad_params, grad_vectors, _ = forward_and_backward(params, vectors, upstream)
    assert grad_vectors.shape == (2, 0, 8) and torch.count_nonzero(grad_params) == 0


def test_dimension_too_large_is_an_error(monkeypatch) -> None:
    monkeypatch.setenv("CISS_FAST_EMULATION_SHARED", "5000")
    with pytest.raises(RuntimeError, match="cayley_rotate: expected vectors that fit into 5000 bytes"):
        cayley_rotate(*draw(1, 40, 1.0)[:2], False)
