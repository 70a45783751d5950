"""The kernel against the definition in double precision: sizes, norms, spectra, types, strides."""

from __future__ import annotations

import pytest
import torch

import ciss_fast

SOLVED_DIRECTLY = -1
NORMS = [0.0, 0.05, 1.0, 3.0, 6.0, 20.0, 100.0]
pytestmark = pytest.mark.usefixtures("needs_kernel")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vectors", [None, 1, 2, 8, 9, 40, 70])
@pytest.mark.parametrize("dimension", [1, 2, 3, 8, 16, 17, 33, 64])
def test_sizes(cayley_inputs, cayley_matches, dimension, vectors, dtype) -> None:
    for norm in NORMS:
        cayley_matches(cayley_inputs(dimension=dimension, vectors=vectors, norm=norm, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dimension, vectors", [(256, None), (300, None), (256, 2), (256, 9), (256, 260), (300, 301)])
def test_the_dimensions_of_networks(cayley_inputs, cayley_matches, dimension, vectors, dtype) -> None:
    for norm in (0.05, 3.0, 100.0):
        cayley_matches(cayley_inputs(classes=1, dimension=dimension, vectors=vectors, norm=norm, dtype=dtype))


@pytest.mark.parametrize("shape", [(0, 8), (0, 3, 8), (3, 0, 8), (0, 0, 8), (1, 1), (2, 3, 1), (1, 1, 2)])
def test_nothing_to_rotate_or_next_to_nothing(cayley_matches, shape) -> None:
    dimension = shape[-1]
    params = torch.randn(shape[0], dimension * (dimension - 1) // 2, generator=torch.Generator().manual_seed(0))
    leaf, vectors = params.requires_grad_(), torch.ones(shape).requires_grad_()
    rotated, iterations = ciss_fast.cayley_rotate(leaf, vectors, backend="cpu", return_iterations=True)
    assert rotated.shape == shape and iterations.shape == shape[:1]
    grad_params, grad_vectors = torch.autograd.grad(rotated.sum(), (leaf, vectors))
    assert grad_params.shape == params.shape and grad_vectors.shape == shape
    assert torch.equal(rotated, ciss_fast.cayley_rotate(params, vectors, backend="reference")) or dimension > 1
    if shape[1] == 0:
        assert (grad_params == 0).all()


@pytest.mark.parametrize("norm", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("dimension", [256, 64, 17, 2])
def test_orthogonality(cayley_inputs, dimension, norm) -> None:
    params, _ = cayley_inputs(classes=2, dimension=dimension, norm=norm)
    for count in (dimension, dimension - 1):  # through the identity's rows; solved for as they are
        axes = torch.eye(dimension)[:count].expand(2, count, dimension)
        rotated = ciss_fast.cayley_rotate(params, axes, backend="cpu").double()
        error = rotated @ rotated.transpose(1, 2) - torch.eye(count, dtype=torch.float64)
        assert float(error.abs().max()) <= 1e-5


@pytest.mark.parametrize("norm", [0.05, 3.0, 100.0])
def test_single_vectors_keep_their_length(cayley_inputs, norm) -> None:
    params, vectors = cayley_inputs(classes=8, dimension=256, norm=norm)
    rotated = ciss_fast.cayley_rotate(params, vectors, backend="cpu")
    torch.testing.assert_close(rotated.double().norm(dim=1), vectors.double().norm(dim=1), rtol=2e-6, atol=0)


@pytest.mark.parametrize("norm", [0.5, 2.0, 4.0, 5.5, 6.5])
def test_residuals_known_from_the_recurrence_alone(cayley_inputs, norm) -> None:
    # For few products with a small S the kernel computes no residual of what it found.
    for seed in range(3):
        params, vectors = cayley_inputs(classes=8, dimension=256, norm=norm, seed=seed)
        rotated = ciss_fast.cayley_rotate(params, vectors, backend="cpu").double()
        expected = ciss_fast.cayley_rotate(params.double(), vectors.double(), backend="reference")
        assert float(((rotated - expected).norm(dim=1) / vectors.double().norm(dim=1)).max()) <= 2e-6


def test_one_vector_or_one_of_many(cayley_inputs) -> None:
    # Iterated, solved directly, and through the identity's rows where there are more than dimensions.
    params, vectors = cayley_inputs(classes=2, dimension=48, vectors=60, norm=2.0)
    many = ciss_fast.cayley_rotate(params, vectors, backend="cpu")
    few = ciss_fast.cayley_rotate(params, vectors[:, 10:20].contiguous(), backend="cpu")
    single = torch.stack([ciss_fast.cayley_rotate(params, vectors[:, s], backend="cpu") for s in range(10, 20)], dim=1)
    torch.testing.assert_close(many[:, 10:20], few, rtol=0, atol=5e-6)
    torch.testing.assert_close(single, few, rtol=0, atol=5e-6)


class TestIterations:
    """How the work that is reported depends on S."""

    def count(self, inputs) -> list[int]:
        rotated, iterations = ciss_fast.cayley_rotate(*inputs, backend="cpu", return_iterations=True)
        assert iterations.dtype == torch.int32 and not iterations.requires_grad
        return iterations.tolist()

    def test_more_for_larger_rotations(self, cayley_inputs) -> None:
        counts = [self.count(cayley_inputs(classes=1, dimension=256, norm=norm))[0] for norm in (0.0, 0.05, 0.5, 2, 4)]
        assert counts == sorted(set(counts)) and counts[0] == 1 and counts[1] <= 6 and counts[-1] <= 82

    def test_direct_solution_beyond(self, cayley_inputs, cayley_matches) -> None:
        for norm in (12.0, 100.0):
            inputs = cayley_inputs(classes=2, dimension=256, norm=norm)
            assert self.count(inputs) == [SOLVED_DIRECTLY] * 2

    def test_both_in_one_call(self, cayley_inputs, cayley_matches) -> None:
        parts = [cayley_inputs(classes=2, dimension=64, norm=norm, seed=int(norm)) for norm in (0.5, 60.0, 2.0, 30.0)]
        inputs = type(parts[0])(*(torch.cat(one) for one in zip(*parts, strict=True)))
        counts = self.count(inputs)
        assert [count == SOLVED_DIRECTLY for count in counts] == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2
        cayley_matches(inputs)

    def test_both_sides_of_the_limit(self, cayley_inputs, cayley_matches) -> None:
        counts = []
        for norm in (4.0, 5.0, 5.5, 6.0, 6.5, 7.0):
            inputs = cayley_inputs(classes=1, dimension=256, norm=norm)
            counts += self.count(inputs)
            cayley_matches(inputs)
        assert counts[0] > 0 and counts[-1] == SOLVED_DIRECTLY

    def test_few_planes_take_few_products(self) -> None:
        # Exactly 3 planes turn: the solution lies in a space of 7 dimensions, however large the angles.
        params = torch.zeros(1, 64 * 63 // 2, dtype=torch.float64)
        for place, value in ((0, 3.0), (200, 50.0), (1500, 0.7)):
            params[0, place] = value
        vectors = torch.randn(1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        rotated, iterations = ciss_fast.cayley_rotate(params, vectors, backend="cpu", return_iterations=True)
        assert 0 < int(iterations) <= 2 * (7 + 1)
        torch.testing.assert_close(rotated, ciss_fast.cayley_rotate(params, vectors, backend="reference"))

    def test_rotations_of_fits(self, cayley_fit_like, cayley_matches) -> None:
        for norm in (1.0, 3.0, 6.0):
            inputs = cayley_fit_like(classes=2, norm=norm)
            assert all(0 < count <= 40 for count in self.count(inputs))
            cayley_matches(inputs)

    def test_few_vectors_add_up_and_many_are_solved_directly(self, cayley_inputs) -> None:
        inputs = cayley_inputs(classes=2, dimension=64, vectors=9, norm=0.3)
        single = torch.tensor([self.count(inputs._replace(vectors=inputs.vectors[:, s])) for s in range(8)])
        assert self.count(inputs._replace(vectors=inputs.vectors[:, :8])) == single.sum(dim=0).tolist()
        assert self.count(inputs) == [SOLVED_DIRECTLY] * 2
        assert self.count(inputs._replace(vectors=inputs.vectors[:, :0])) == [0] * 2

    def test_both_sides_of_the_limit_for_few_vectors(self, cayley_inputs, cayley_matches) -> None:
        counts = []
        for norm in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0):
            inputs = cayley_inputs(classes=1, dimension=256, vectors=4, norm=norm)
            counts += self.count(inputs)
            cayley_matches(inputs)
        assert counts[0] > 0 and counts[-1] == SOLVED_DIRECTLY

    def test_reference(self, cayley_inputs) -> None:
        _, iterations = ciss_fast.cayley_rotate(*cayley_inputs(), backend="reference", return_iterations=True)
        assert iterations.tolist() == [SOLVED_DIRECTLY] * 3 and iterations.dtype == torch.int32


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("vectors", [None, 3, 12, 20])
def test_scale_of_the_vectors(cayley_inputs, vectors, scale) -> None:
    for norm in (1.0, 50.0):
        params, x = cayley_inputs(dimension=16, vectors=vectors, norm=norm)
        rotated = ciss_fast.cayley_rotate(params, scale * x, backend="cpu") / scale
        torch.testing.assert_close(rotated, ciss_fast.cayley_rotate(params, x, backend="cpu"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", [1.0, 50.0])
@pytest.mark.parametrize("vectors", [None, 3, 12, 20])
def test_zero_vectors_and_gradients(cayley_inputs, cayley_evaluate, vectors, norm) -> None:
    inputs = cayley_inputs(dimension=16, vectors=vectors, norm=norm)
    nothing = torch.zeros_like(inputs.vectors)
    result = cayley_evaluate(inputs._replace(vectors=nothing), backend="cpu")
    assert (result.rotated == 0).all() and (result.grad_params == 0).all() and (result.grad_vectors != 0).any()
    result = cayley_evaluate(inputs, nothing, backend="cpu")
    assert (result.grad_params == 0).all() and (result.grad_vectors == 0).all()


@pytest.mark.parametrize("vectors", [None, 3, 20, 40])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_vectors(cayley_inputs, cayley_matches, vectors, dtype) -> None:
    for norm in (1.0, 50.0):
        cayley_matches(cayley_inputs(dimension=33, vectors=vectors, norm=norm, dtype=dtype))


@pytest.mark.parametrize("vectors", [None, 3, 20, 40])
def test_mixed_types_are_computed_in_double_precision(cayley_inputs, cayley_matches, vectors) -> None:
    inputs = cayley_inputs(dimension=33, vectors=vectors, norm=4.0, dtype=torch.float64)
    cayley_matches(inputs._replace(params=inputs.params.float()), tolerance=1e-7)
    rotated, _ = cayley_matches(inputs._replace(vectors=inputs.vectors.float()))
    assert rotated.rotated.dtype == torch.float32 and rotated.grad_params.dtype == torch.float64


@pytest.mark.parametrize("vectors", [None, 4, 12, 40])
@pytest.mark.parametrize("norm", [1.0, 50.0])
def test_strides(cayley_inputs, cayley_evaluate, vectors, norm) -> None:
    inputs = cayley_inputs(dimension=17, vectors=vectors, norm=norm)
    expected = cayley_evaluate(inputs, backend="cpu")

    def spread(tensor: torch.Tensor) -> torch.Tensor:
        wide = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"))
        wide[..., ::2] = tensor
        return wide[..., ::2]

    def reversed_storage(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.permute(*range(tensor.dim())[::-1]).contiguous().permute(*range(tensor.dim())[::-1])

    for change in (spread, reversed_storage):
        params, x = (change(one).requires_grad_() for one in inputs)
        assert not x.is_contiguous() and not params.is_contiguous()
        rotated = ciss_fast.cayley_rotate(params, x, backend="cpu")
        generator = torch.Generator().manual_seed(1)
        upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64).float()
        gradients = torch.autograd.grad(rotated, (params, x), change(upstream))
        for one, other in zip((rotated.detach(), *gradients), expected, strict=True):
            assert torch.equal(one, other)


def test_expanded_arguments(cayley_inputs) -> None:
    params, vectors = cayley_inputs(classes=1, dimension=9, vectors=4)
    rotated = ciss_fast.cayley_rotate(params.expand(3, -1), vectors[:, :1].expand(3, 5, 9), backend="cpu")
    single = ciss_fast.cayley_rotate(params, vectors[:, 0], backend="cpu")
    torch.testing.assert_close(rotated, single[:, None].expand(3, 5, 9), rtol=0, atol=2e-6)


def test_unaligned_addresses(cayley_inputs, cayley_evaluate) -> None:
    for dimension in (16, 17, 64):
        inputs = cayley_inputs(dimension=dimension, norm=2.0)
        expected = cayley_evaluate(inputs, backend="cpu")
        generator = torch.Generator().manual_seed(1)
        upstream = torch.randn(inputs.vectors.shape, generator=generator, dtype=torch.float64).float()
        for offset in (1, 3):
            moved = [torch.cat([torch.zeros(offset), one.flatten()])[offset:].view(one.shape) for one in inputs]
            assert all(one.data_ptr() % 64 == 4 * offset for one in moved)
            params, vectors = (one.requires_grad_() for one in moved)
            rotated = ciss_fast.cayley_rotate(params, vectors, backend="cpu")
            gradients = torch.autograd.grad(rotated, (params, vectors), upstream)
            assert all(map(torch.equal, (rotated, *gradients), expected))
