"""`cayley_rotate` as a PyTorch operator: registration, gradients, second derivatives, torch.compile."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

import ciss_fast

pytestmark = pytest.mark.usefixtures("needs_kernel")

SHAPES = [(1, None), (2, None), (3, None), (6, None), (17, None), (3, 1), (5, 2), (5, 7), (2, 2)]


@pytest.mark.parametrize("norm", [0.5, 40.0], ids=["iterated", "direct"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("vectors", [None, 3, 40])
@pytest.mark.parametrize("need_gradient", [True, False])
def test_operator(cayley_inputs, need_gradient, vectors, dtype, norm) -> None:
    params, x = cayley_inputs(classes=2, dimension=33, vectors=vectors, norm=norm, dtype=dtype)
    params, x = params.requires_grad_(need_gradient), x.requires_grad_(need_gradient)
    torch.library.opcheck(torch.ops.ciss_fast.cayley_rotate.default, (params, x, need_gradient))


def test_operator_for_one_of_the_gradients(cayley_inputs) -> None:
    params, x = cayley_inputs(classes=2, dimension=9)
    for one, other in ((params.clone().requires_grad_(), x), (params, x.clone().requires_grad_())):
        torch.library.opcheck(torch.ops.ciss_fast.cayley_rotate.default, (one, other, True))


@pytest.mark.parametrize("norm", [0.5, 40.0], ids=["iterated", "direct"])
@pytest.mark.parametrize("need_params", [True, False])
@pytest.mark.parametrize("vectors", [None, 3])
def test_operator_of_the_backward_pass(cayley_inputs, vectors, need_params, norm) -> None:
    params, x = cayley_inputs(classes=2, dimension=33, vectors=vectors, norm=norm)
    _, solutions, factors, iterations = torch.ops.ciss_fast.cayley_rotate(params, x, True)
    arguments = (params, solutions, factors, iterations, torch.ones_like(x), need_params)
    torch.library.opcheck(torch.ops.ciss_fast.cayley_rotate_backward.default, arguments)
    assert torch.equal(iterations, torch.ops.ciss_fast.cayley_rotate(params, x, True)[3])  # read, not written


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("norm", [0.5, 3.0, 30.0])
@pytest.mark.parametrize(("dimension", "vectors"), SHAPES)
def test_numerical_gradient(cayley_inputs, dimension, vectors, norm, backend) -> None:
    inputs = cayley_inputs(classes=2, dimension=dimension, vectors=vectors, norm=norm, dtype=torch.float64)
    params, x = (one.requires_grad_() for one in inputs)
    assert gradcheck(
        lambda p, v: ciss_fast.cayley_rotate(p, v, backend=backend),
        (params, x) if dimension > 1 else (params.detach(), x),
        atol=1e-6,
        check_batched_grad=False,
    )


def test_gradient_of_either_argument_alone(cayley_inputs, cayley_evaluate) -> None:
    for vectors in (None, 3, 20):
        inputs = cayley_inputs(dimension=16, vectors=vectors, norm=2.0)
        expected = cayley_evaluate(inputs, torch.ones_like(inputs.vectors), backend="cpu")
        leaf = inputs.params.clone().requires_grad_()
        ciss_fast.cayley_rotate(leaf, inputs.vectors, backend="cpu").sum().backward()
        assert torch.equal(leaf.grad, expected.grad_params)
        leaf = inputs.vectors.clone().requires_grad_()
        ciss_fast.cayley_rotate(inputs.params, leaf, backend="cpu").sum().backward()
        assert torch.equal(leaf.grad, expected.grad_vectors)


def test_no_gradient_is_prepared_where_none_is_wanted(cayley_inputs) -> None:
    params, x = cayley_inputs()
    assert not ciss_fast.cayley_rotate(params, x, backend="cpu").requires_grad
    with torch.no_grad():
        assert not ciss_fast.cayley_rotate(params.requires_grad_(), x, backend="cpu").requires_grad
    rotated, solutions, factors, _ = torch.ops.ciss_fast.cayley_rotate(params, x, False)
    assert solutions.numel() == factors.numel() == 0
    with pytest.raises(RuntimeError, match="^cayley_rotate: the gradient was not asked for"):
        rotated.sum().backward()


class TestFactors:
    """What direct solutions leave to the backward pass, behind a tensor without elements."""

    NORMS = (60.0, 0.5, 30.0)

    def inputs(self, draw, vectors: int | None):
        """Classes 0 and 2 are solved directly, class 1 is not."""
        parts = [draw(classes=1, dimension=40, vectors=vectors, norm=norm, seed=int(norm)) for norm in self.NORMS]
        return type(parts[0])(*(torch.cat(one) for one in zip(*parts, strict=True)))

    def forward(self, inputs, need_gradient: bool = True):
        return torch.ops.ciss_fast.cayley_rotate(*inputs, need_gradient)

    def backward(self, inputs, solutions, factors, iterations):
        upstream = torch.ones_like(inputs.vectors)
        return torch.ops.ciss_fast.cayley_rotate_backward(
            inputs.params, solutions, factors, iterations, upstream, True
        )

    @pytest.mark.parametrize("vectors", [None, 3, 20])
    def test_size(self, cayley_inputs, vectors) -> None:
        inputs = self.inputs(cayley_inputs, vectors)
        _, _, factors, iterations = self.forward(inputs)
        slot = 4 * 48 * (48 + 3 * 16)  # rows and columns are a multiple of 16
        assert factors.shape == (0,)
        assert factors.untyped_storage().nbytes() == (0 if vectors == 20 else 2 * slot)
        assert self.forward(inputs, need_gradient=False)[2].untyped_storage().nbytes() == 0
        assert self.forward(cayley_inputs(norm=0.5))[2].untyped_storage().nbytes() == 0

    @pytest.mark.parametrize("vectors", [None, 3])
    @pytest.mark.parametrize("storage", ["kept", "lost", "of another size", "zeros", "ones", "nan"])
    def test_gradient(self, cayley_inputs, cayley_define, vectors, storage) -> None:
        inputs = self.inputs(cayley_inputs, vectors)
        _, solutions, factors, iterations = self.forward(inputs)
        assert (iterations < 0).tolist() == [True, False, True]
        if storage == "lost":
            factors = factors.clone()
        elif storage == "of another size":
            factors = torch.zeros(1000, dtype=torch.uint8)[:0]
        elif storage != "kept":
            wrong = {"zeros": 0.0, "ones": 1.0, "nan": float("nan")}[storage]
            factors = torch.full((factors.untyped_storage().nbytes() // 4,), wrong).view(torch.uint8)[:0]
        before = bytes(factors.untyped_storage())
        expected = cayley_define(inputs, torch.ones_like(inputs.vectors))
        grad_params, grad_vectors = self.backward(inputs, solutions, factors, iterations)
        torch.testing.assert_close(grad_vectors.double(), expected.grad_vectors, rtol=0, atol=5e-6)
        for k in range(3):
            largest = float(expected.grad_params[k].abs().max())
            torch.testing.assert_close(
                grad_params[k].double(), expected.grad_params[k], rtol=0, atol=1e-5 * largest
            )
        if storage == "kept":
            assert bytes(factors.untyped_storage()) == before
            again = self.backward(inputs, solutions, factors, iterations)
            assert torch.equal(again[0], grad_params) and torch.equal(again[1], grad_vectors)

    def test_they_are_used(self, cayley_inputs) -> None:
        # Factors of other rotations that are close: the corrections get there, with other bits.
        inputs = self.inputs(cayley_inputs, None)
        _, solutions, factors, iterations = self.forward(inputs)
        _, _, others, _ = self.forward(inputs._replace(params=inputs.params * 1.0001))
        right = self.backward(inputs, solutions, factors, iterations)
        close = self.backward(inputs, solutions, others, iterations)
        torch.testing.assert_close(close[1], right[1], rtol=0, atol=5e-6)
        assert torch.equal(close[1][1], right[1][1]) and not torch.equal(close[1], right[1])

    def test_saved_tensors_that_are_copied(self, cayley_inputs, cayley_evaluate) -> None:
        inputs = self.inputs(cayley_inputs, None)
        expected = cayley_evaluate(inputs, backend="cpu")
        with torch.autograd.graph.save_on_cpu():
            result = cayley_evaluate(inputs, backend="cpu")
        torch.testing.assert_close(result.grad_vectors, expected.grad_vectors, rtol=0, atol=5e-6)
        torch.testing.assert_close(result.grad_params, expected.grad_params, rtol=1e-4, atol=1e-5)


def test_second_derivative_is_an_error(cayley_inputs) -> None:
    params, x = (one.requires_grad_() for one in cayley_inputs())
    rotated = ciss_fast.cayley_rotate(params, x, backend="cpu")
    gradients = torch.autograd.grad(rotated.square().sum(), (params, x), create_graph=True)
    for gradient in gradients:
        with pytest.raises(RuntimeError, match="^cayley_rotate: expected a single backward pass"):
            torch.autograd.grad(gradient.sum(), params, retain_graph=True)


def test_several_backward_passes_add_up(cayley_inputs) -> None:
    params, x = cayley_inputs(norm=2.0)
    leaf = params.requires_grad_()
    rotated = ciss_fast.cayley_rotate(leaf, x, backend="cpu")
    rotated.sum().backward(retain_graph=True)
    once = leaf.grad.clone()
    rotated.sum().backward()
    assert torch.equal(leaf.grad, 2 * once)


def test_a_changed_parameter_is_noticed(cayley_inputs) -> None:
    params, x = cayley_inputs()
    leaf = params.requires_grad_()
    rotated = ciss_fast.cayley_rotate(leaf, x, backend="cpu")
    with torch.no_grad():
        leaf.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        rotated.sum().backward()


def test_in_a_larger_graph(cayley_inputs, cayley_define) -> None:
    # The same parameters twice, and a transposed result (an incoming gradient with other strides).
    inputs = cayley_inputs(dimension=12, norm=2.0, dtype=torch.float64)

    def total(backend: str) -> torch.Tensor:
        params = inputs.params.clone().requires_grad_()
        once = ciss_fast.cayley_rotate(params, inputs.vectors, backend=backend)
        twice = ciss_fast.cayley_rotate(params, once, backend=backend)
        (twice.T @ torch.diag(torch.arange(1.0, 4.0, dtype=torch.float64)) @ once).square().sum().backward()
        return params.grad

    torch.testing.assert_close(total("cpu"), total("reference"), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("vectors", [None, 3])
def test_autocast(cayley_inputs, cayley_evaluate, vectors) -> None:
    inputs = cayley_inputs(dimension=20, vectors=vectors)
    expected = cayley_evaluate(inputs, backend="cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = cayley_evaluate(inputs, backend="cpu")
        reference = ciss_fast.cayley_rotate(*inputs, backend="reference")
    assert all(map(torch.equal, result, expected))
    torch.testing.assert_close(result.rotated, reference, rtol=0, atol=2e-6)


@pytest.fixture
def fresh_compiler():
    """Each test compiles for itself."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def fit_loss(params: torch.Tensor, vectors: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rotated, iterations = ciss_fast.cayley_rotate(params, vectors, return_iterations=True)
    return (1 - torch.cosine_similarity(rotated, target, dim=-1)).mean(), iterations


@pytest.mark.parametrize("vectors", [None, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_into_one_graph(cayley_inputs, fresh_compiler, dtype, vectors) -> None:
    compiled = torch.compile(fit_loss, backend="aot_eager", fullgraph=True)
    for norm in (1.0, 40.0):
        inputs = cayley_inputs(dimension=20, vectors=vectors, norm=norm, dtype=dtype)
        results = []
        for function in (fit_loss, compiled):
            params, x = (one.clone().requires_grad_() for one in inputs)
            loss, iterations = function(params, x, torch.ones_like(inputs.vectors))
            loss.backward()
            results.append((loss.detach(), iterations, params.grad, x.grad))
        assert all(map(torch.equal, *results))


def test_compiled_for_another_number_of_classes(cayley_inputs, fresh_compiler) -> None:
    compiled = torch.compile(fit_loss, backend="aot_eager", fullgraph=True, dynamic=True)
    for classes in (2, 3, 5):
        params, x = cayley_inputs(classes=classes)
        leaf, other = params.clone().requires_grad_(), params.clone().requires_grad_()
        compiled(leaf, x, torch.ones_like(x))[0].backward()
        fit_loss(other, x, torch.ones_like(x))[0].backward()
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-6, atol=1e-8)
