"""Backend "cuda" through the public functions, with emulated kernels; the library that nvcc makes."""

from __future__ import annotations

import pytest
import torch
from loss_testing import LOSSES

import ciss_fast
from ciss_fast import backends, cuda_runtime

OPS = ("softmax_loss", "sigmoid_loss", "cayley_rotate", "rotation_loss")


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses(emulated_cuda, loss, dtype) -> None:
    inputs = loss.draw(dtype=dtype)
    result = loss.evaluate(inputs, upstream=-2.5, backend="cuda", **loss.mix)
    expected = loss.define(inputs, upstream=-2.5, **loss.mix)
    assert result.gradient.dtype == dtype and result.total.dtype == torch.float32
    torch.testing.assert_close(result.total.double(), expected.total.double(), rtol=1e-5, atol=0)
    tolerance = float(expected.gradient.abs().max()) * (1e-5 if dtype == torch.float32 else 2**-8)
    torch.testing.assert_close(result.gradient.double(), expected.gradient.double(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_double_precision_is_refused(emulated_cuda, loss) -> None:
    with pytest.raises(TypeError, match="GPU kernels take float32, bfloat16 or float16, got float64"):
        loss.evaluate(loss.draw(dtype=torch.float64), backend="cuda", **loss.mix)


def test_rotations(emulated_cuda) -> None:
    torch.manual_seed(0)
    params, vectors = torch.randn(2, 28, requires_grad=True), torch.randn(2, 3, 8, requires_grad=True)
    upstream = torch.randn(2, 3, 8)
    results = []
    for backend in ("cuda", "reference"):
        rotated, iterations = ciss_fast.cayley_rotate(params, vectors, return_iterations=True, backend=backend)
        results.append((rotated.detach(), *torch.autograd.grad(rotated, (params, vectors), upstream)))
        assert iterations.shape == (2,)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_fit_of_rotations(emulated_cuda) -> None:
    torch.manual_seed(0)
    prototypes, classifier = torch.rand(2, 3, 2, 8), (torch.randn(5, 8), torch.randn(5))
    params = torch.randn(3, 28, requires_grad=True)
    results = []
    for backend in ("cuda", "reference"):
        total, terms = ciss_fast.rotation_loss(params, *prototypes, *classifier, backend=backend)
        results.append((total.detach(), terms["fid"], terms["reg"], *torch.autograd.grad(total, params)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="GPU kernels take float32, bfloat16 or float16, got float64"):
        ciss_fast.rotation_loss(params.double(), *prototypes, *classifier, backend="cuda")


def test_operators(emulated_cuda) -> None:
    torch.manual_seed(0)
    arguments = torch.randn(2, 28), torch.randn(2, 8), True
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.ciss_fast.cayley_rotate.default, arguments, {"backend": "cuda"}, test_utils=checks
    )


def test_compiled_function(emulated_cuda) -> None:
    loss = LOSSES[0]
    inputs = loss.draw()

    def total(student: torch.Tensor) -> torch.Tensor:
        return loss.function(student, *inputs[1:], backend="cuda", **loss.mix)[0]

    student = inputs.student.clone().requires_grad_()
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")(student)
    compiled.backward()
    expected = loss.evaluate(inputs, backend="cuda", **loss.mix)
    assert torch.equal(compiled, expected.total) and torch.equal(student.grad, expected.gradient)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("op", OPS)
def test_without_a_gpu_the_table_says_why(op) -> None:
    assert backends.table()[op]["cuda"] in ("no GPU", cuda_runtime.module_or_reason()[1])
