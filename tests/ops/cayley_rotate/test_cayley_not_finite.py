"""A NaN or an infinity comes out as NaN: in the parameters, all over the class; in a vector, all over the vector."""

from __future__ import annotations

import pytest
import torch

VALUES = [float("nan"), float("inf"), float("-inf")]
BACKENDS = ["reference", "cpu"]
pytestmark = pytest.mark.usefixtures("needs_kernel")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("vectors", [None, 4, 12, 30])
@pytest.mark.parametrize("norm", [0.5, 50.0])
def test_parameters(cayley_inputs, cayley_evaluate, norm, vectors, value, backend) -> None:
    for dtype in (torch.float32, torch.float64):
        inputs = cayley_inputs(classes=3, dimension=17, vectors=vectors, norm=norm, dtype=dtype)
        clean = cayley_evaluate(inputs, backend=backend)
        for place in (0, 70, 135):
            for x in (inputs.vectors, torch.zeros_like(inputs.vectors)):
                params = inputs.params.clone()
                params[1, place] = value
                result = cayley_evaluate(type(inputs)(params, x), backend=backend)
                assert result.rotated[1].isnan().all(), place
                if backend == "cpu":  # autograd's gradients may be anything where the result is not finite
                    assert result.grad_params[1].isnan().all() and result.grad_vectors[1].isnan().all(), place
                if x is inputs.vectors:
                    for one, expected in zip(result, clean, strict=True):
                        assert torch.equal(one[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("vectors", [None, 4, 12, 30])
@pytest.mark.parametrize("norm", [0.5, 50.0])
def test_vectors(cayley_inputs, cayley_evaluate, norm, vectors, value, backend) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        inputs = cayley_inputs(classes=3, dimension=17, vectors=vectors, norm=norm, dtype=dtype)
        clean = cayley_evaluate(inputs, backend=backend)
        for place in (0, 8, 16):
            x = inputs.vectors.clone()
            one_vector = (1,) if vectors is None else (1, 2)
            x[(*one_vector, place)] = value
            result = cayley_evaluate(inputs._replace(vectors=x), backend=backend)
            assert result.rotated[one_vector].isnan().all()
            assert result.grad_params[1].isnan().all() or backend == "reference"
            others = torch.ones(x.shape[:-1], dtype=torch.bool)
            others[one_vector] = False
            assert torch.equal(result.rotated[others], clean.rotated[others])
            # The class's own may have other bits: the forward pass left no factors for it.
            torch.testing.assert_close(result.grad_vectors[1], clean.grad_vectors[1], rtol=1e-5, atol=1e-5)
            assert torch.equal(result.grad_vectors[[0, 2]], clean.grad_vectors[[0, 2]])
            assert torch.equal(result.grad_params[[0, 2]], clean.grad_params[[0, 2]])


@pytest.mark.parametrize("vectors", [None, 4, 12, 30])
@pytest.mark.parametrize("norm", [0.5, 50.0])
def test_incoming_gradient(cayley_inputs, cayley_evaluate, norm, vectors) -> None:
    inputs = cayley_inputs(classes=3, dimension=17, vectors=vectors, norm=norm)
    upstream = torch.ones_like(inputs.vectors)
    clean = cayley_evaluate(inputs, upstream, backend="cpu")
    for value in VALUES:
        upstream[1, ..., 5] = value
        result = cayley_evaluate(inputs, upstream, backend="cpu")
        assert torch.equal(result.rotated, clean.rotated)
        assert result.grad_params[1].isnan().all() and result.grad_vectors[1].isnan().all()
        assert torch.equal(result.grad_params[[0, 2]], clean.grad_params[[0, 2]])
        assert torch.equal(result.grad_vectors[[0, 2]], clean.grad_vectors[[0, 2]])


def test_the_next_call_is_clean(cayley_inputs, cayley_evaluate) -> None:
    for vectors in (None, 4, 12, 30):
        inputs = cayley_inputs(dimension=17, vectors=vectors)
        expected = cayley_evaluate(inputs, backend="cpu")
        broken = cayley_evaluate(inputs._replace(params=inputs.params * float("nan")), backend="cpu")
        assert all(one.isnan().all() for one in broken)
        assert all(map(torch.equal, cayley_evaluate(inputs, backend="cpu"), expected))
