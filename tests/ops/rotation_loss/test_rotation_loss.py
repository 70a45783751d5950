"""The fused loss of the rotations against the definition: values, gradient, accuracy, determinism, operator, errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import ciss_fast

needs_kernel = pytest.mark.usefixtures("needs_kernel")
SHAPES = [  # classes, dimension, groups, outputs
    (1, 2, None, 1),
    (2, 3, 2, 2),
    (3, 16, None, 3),
    (4, 17, 3, 16),
    (5, 31, 1, 33),
    (3, 130, None, 40),
    (2, 256, 2, 151),
]


def test_by_hand() -> None:
    # In the plane R turns by 2 atan(u / 2); r' = (+-1, 0), centred as it is; r = (0, +-1).
    params = torch.tensor([[0.0], [0.0]])
    previous, current = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, -2.0]])
    weight, bias = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.zeros(2)
    for backend in (None, "reference"):
        total, terms = ciss_fast.rotation_loss(params, previous, current, weight, bias, 0.25, backend=backend)
        assert float(terms["fid"]) == pytest.approx(1)
        expected = (torch.log1p(torch.exp(torch.tensor(-1.0))) * 2) / 2  # class 0: logits (1, 0); class 1: (-1, 0)
        assert float(terms["reg"]) == pytest.approx(float(expected), rel=1e-6)
        assert float(total) == pytest.approx(0.25 + 0.75 * float(expected), rel=1e-6)
    turned = torch.full((2, 1), 2.0)  # 2 atan(u / 2): a quarter turn takes (1, 0) to (0, 1)
    assert float(ciss_fast.rotation_loss(turned, previous, current, weight, bias, 1.0)[0]) == pytest.approx(0, abs=1e-6)


@needs_kernel
@pytest.mark.parametrize("scale", [0.0, 0.05, 1.5, 20.0])
@pytest.mark.parametrize(("classes", "dimension", "groups", "outputs"), SHAPES)
def test_matches_the_definition(rotation_fit, rotation_matches, classes, dimension, groups, outputs, scale) -> None:
    fit = rotation_fit(classes=classes, dimension=dimension, groups=groups, outputs=outputs, scale=scale)
    rotation_matches(fit, tolerance=2e-5, backend="cpu")
    rotation_matches(fit.to(torch.float64), tolerance=1e-11, backend="cpu")


@needs_kernel
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_weights_of_the_terms(rotation_fit, rotation_matches, weight) -> None:
    result = rotation_matches(rotation_fit()._replace(fidelity_weight=weight))
    assert float(result.total) == pytest.approx(weight * float(result.fid) + (1 - weight) * float(result.reg), rel=1e-6)


@needs_kernel
def test_types_and_strides(rotation_fit, rotation_matches) -> None:
    fit = rotation_fit(groups=2)
    half = fit._replace(previous=fit.previous.bfloat16(), current=fit.current.half(), weight=fit.weight.bfloat16())
    assert rotation_matches(half).gradient.dtype == torch.float32
    strided = fit._replace(
        params=fit.params.t().contiguous().t(), previous=fit.previous.transpose(0, 1).contiguous().transpose(0, 1)
    )
    rotation_matches(strided)
    mixed = fit._replace(bias=fit.bias.double())
    assert rotation_matches(mixed, tolerance=1e-6).total.dtype == torch.float64


@needs_kernel
def test_large_logits_and_features(rotation_fit, rotation_matches) -> None:
    fit = rotation_fit()
    rotation_matches(fit._replace(weight=1e3 * fit.weight, fidelity_weight=0.0), tolerance=1e-4)
    for size in (1e-6, 1e6):
        previous, current, weight = size * fit.previous, size * fit.current, fit.weight / size
        rotation_matches(fit._replace(previous=previous, current=current, weight=weight))


@needs_kernel
def test_vanishing_prototypes(rotation_fit, rotation_matches) -> None:
    # All classes alike: nothing is left of them when they are centred.
    fit = rotation_fit()
    same = fit.previous[:1].expand_as(fit.previous)
    result = rotation_matches(fit._replace(previous=same))
    assert float(result.fid) == pytest.approx(1) and not result.gradient.any()
    rotation_matches(fit._replace(current=fit.current[:1].expand_as(fit.current)))


@needs_kernel
@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_not_finite(rotation_fit, rotation_evaluate, scale) -> None:
    fit = rotation_fit(groups=2, scale=scale)
    clean = rotation_evaluate(fit, backend="cpu")
    for value in (float("nan"), float("inf")):
        params = fit.params.clone()
        params[1, 3] = value
        result = rotation_evaluate(fit._replace(params=params), backend="cpu")
        assert result.total.isnan() and result.gradient[1].isnan().all()
        assert torch.equal(result.gradient[[0, 2, 3]], clean.gradient[[0, 2, 3]])  # other classes do not depend on it
        for name in ("previous", "current", "weight", "bias"):
            broken = getattr(fit, name).clone()
            broken.view(-1)[0] = value
            result = rotation_evaluate(fit._replace(**{name: broken}), backend="cpu")
            assert result.total.isnan() or result.total.isinf()
            assert not result.gradient.isfinite().all()


@needs_kernel
def test_unsolvable_rotations_are_refused(rotation_fit) -> None:
    fit = rotation_fit()
    params = fit.params.clone()
    params[2] *= 1e9
    with pytest.raises(ValueError, match=r"^params: expected rotations that can be solved within .* got class 2 "):
        ciss_fast.rotation_loss(params, *fit[1:], backend="cpu")


@needs_kernel
@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_same_bits_for_any_number_of_threads_and_whatever_memory_holds(
    rotation_fit, rotation_evaluate, request, scale
) -> None:
    fit = rotation_fit(classes=7, dimension=40, groups=2, scale=scale)
    expected = rotation_evaluate(fit, backend="cpu")
    rotation_evaluate(rotation_fit(classes=2, dimension=90, scale=scale)._replace(bias=torch.full((9,), torch.nan)))
    request.getfixturevalue("nan_filled")
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for _ in range(2):
            assert all(map(torch.equal, rotation_evaluate(fit, backend="cpu"), expected))


def test_gradcheck(rotation_fit) -> None:
    fit = rotation_fit(classes=2, dimension=6, groups=2, outputs=4).to(torch.float64)
    for backend in (None, "reference"):
        torch.autograd.gradcheck(
            lambda params, backend=backend: ciss_fast.rotation_loss(params, *fit[1:], backend=backend)[0],
            fit.params.clone().requires_grad_(),
        )


def test_only_the_parameters_get_a_gradient(rotation_fit) -> None:
    fit = rotation_fit()
    for backend in (None, "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in fit[:5]]
        total, terms = ciss_fast.rotation_loss(*leaves, backend=backend)
        assert not terms["fid"].requires_grad and not terms["reg"].requires_grad
        total.backward()
        assert leaves[0].grad is not None and all(leaf.grad is None for leaf in leaves[1:])


@needs_kernel
def test_without_gradient(rotation_fit) -> None:
    fit = rotation_fit()
    total, _ = ciss_fast.rotation_loss(*fit)
    assert not total.requires_grad
    leaf = fit.params.clone().requires_grad_()
    _, _, products, gradient = torch.ops.ciss_fast.rotation_loss(leaf, *fit[1:], False)
    assert gradient.numel() == 0 and products.shape == (4,) and (products > 0).all()
    _, _, both, _ = torch.ops.ciss_fast.rotation_loss(leaf, *fit[1:], True)
    assert (both > products).all()


@needs_kernel
def test_operator(rotation_fit) -> None:
    fit = rotation_fit(groups=2)
    for params in (fit.params, fit.params.clone().requires_grad_()):
        torch.library.opcheck(torch.ops.ciss_fast.rotation_loss.default, (params, *fit[1:], True))


@needs_kernel
def test_compiled(rotation_fit, rotation_evaluate) -> None:
    fit = rotation_fit()
    expected = rotation_evaluate(fit)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(params):
        total, terms = ciss_fast.rotation_loss(params, *fit[1:])
        return -3 * total, terms["reg"]

    params = fit.params.clone().requires_grad_()
    total, regulariser = step(params)
    total.backward()
    assert torch.equal(total.detach(), -3 * expected.total) and torch.equal(regulariser, expected.reg)
    assert torch.equal(params.grad, expected.gradient)


FIT = {
    "params": torch.zeros(3, 6),
    "previous": torch.zeros(3, 4),
    "current": torch.zeros(3, 4),
    "weight": torch.zeros(5, 4),
    "bias": torch.zeros(5),
}


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"params": None}, TypeError, "params: expected a torch.Tensor, got NoneType"),
        ({"params": torch.zeros(3, 5)}, ValueError, "params: expected [K, D (D - 1) / 2] = [3, 6]"),
        ({"params": torch.zeros(3, 6).half()}, TypeError, "params: expected float32 or float64, got torch.float16"),
        ({"previous": torch.zeros(3)}, ValueError, "previous: expected [K, D] or [K, S, D] with D >= 1, got shape [3]"),
        ({"current": torch.zeros(3, 1, 4)}, ValueError, "current: expected [3, 4] like previous, got shape [3, 1, 4]"),
        ({"weight": torch.zeros(2, 4)}, ValueError, "weight: expected [C, 4] with C >= 3 classes, got shape [2, 4]"),
        ({"weight": torch.zeros(5, 4, dtype=torch.int64)}, TypeError, "weight: "),
        ({"bias": torch.zeros(4)}, ValueError, "bias: expected [5], one for each row of weight, got [4]"),
        ({"bias": torch.zeros(5, device="meta")}, ValueError, "bias: expected device cpu like params, got meta"),
        ({"fidelity_weight": 1.5}, ValueError, "fidelity_weight: expected a number from 0 to 1, got 1.5"),
        ({"fidelity_weight": float("nan")}, ValueError, "fidelity_weight: expected a number from 0 to 1, got nan"),
        ({"fidelity_weight": "x"}, TypeError, "fidelity_weight: expected a number, got str"),
    ],
)
def test_errors(backend, changes, error, message) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        ciss_fast.rotation_loss(**{**FIT, **changes}, backend=backend)


CHECKS = """
import importlib.util, sys, torch
specification = importlib.util.spec_from_file_location("rotation_conftest", sys.argv[1])
conftest = sys.modules["rotation_conftest"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(conftest)
for classes, dimension, groups, outputs in eval(sys.argv[2]):
    for scale in (0.05, 1.5, 20.0):
        fit = conftest.draw_fit(classes=classes, dimension=dimension, groups=groups, outputs=outputs, scale=scale)
        conftest.assert_matches(fit, tolerance=2e-5, backend="cpu")
        conftest.assert_matches(fit.to(torch.float64), tolerance=1e-11, backend="cpu")
from ciss_fast import native
print(native.library.instruction_set())
"""


@needs_kernel
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_instruction_sets(run_in_instruction_set, name) -> None:
    conftest = str(Path(__file__).with_name("conftest.py"))
    assert run_in_instruction_set(name, CHECKS, conftest, repr(SHAPES)) == f"{name}\n"
