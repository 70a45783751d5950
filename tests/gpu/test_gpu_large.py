"""Tensors with more than 2^31 elements: every offset must have 64 bits.

A small problem is repeated until the tensor is large enough, so the answer is known from the small one; the results of
every repetition are compared, where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from op_cases import CASES, OpCase, kernels, skip_unless_it_runs
from torch import Tensor

import ciss_fast

MORE_THAN = 2**31
GIB = 2**30
BLOCK = 2**26  # elements compared at a time
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class LargeCase:
    """One op on repeated arguments.

    Attributes:
        name: of the case.
        case: the op, to find its kernels.
        run: compares the large problem with the small one; takes the device, the backend and the elements that the
            largest tensor must exceed.
        gibibytes: memory of the card that it takes: twice the tensors' sizes, for what an op keeps beside them.
    """

    name: str
    case: OpCase
    run: Callable[[torch.device, str, int], None]
    gibibytes: int


def repetitions(one: Tensor, elements: int) -> int:
    """How often ``one`` fits into ``elements``, and once more."""
    return elements // one.numel() + 2


def assert_repeats(large: Tensor, small: Tensor, tolerance: float) -> None:
    """``large`` is ``small`` again and again along its first dimension, within ``tolerance`` of the largest entry."""
    assert large.shape[1:] == small.shape[1:] and len(large) % len(small) == 0
    rows, expected = large.reshape(-1, small.numel()), small.reshape(1, -1)
    allowed = tolerance * float(small.abs().max())
    at_a_time = max(1, BLOCK // small.numel())
    for start in range(0, len(rows), at_a_time):
        error = float((rows[start : start + at_a_time].float() - expected.float()).abs().max())
        assert error <= allowed, f"repetitions from {start} on: off by {error:.2e}, allowed {allowed:.2e}"


def _logits(shape: tuple[int, ...], device: torch.device, seed: int) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, device=device)).to(torch.bfloat16)


def _loss(function: Callable[..., tuple[Tensor, dict]], weights: dict[str, float], channels: int, enlarged: bool):
    def run(device: torch.device, backend: str, elements: int) -> None:
        # Enlarged, the label is what is large; otherwise the student and its gradient are.
        size = (32, 32) if enlarged else (64, 64)
        label_size = (512, 512) if enlarged else size
        student, teacher = _logits((1, channels, *size), device, 0), _logits((1, channels - 1, *size), device, 1)
        label = torch.arange(label_size[0] * label_size[1], device=device).view(1, *label_size) % (channels + 1)
        label = label.masked_fill(label == channels, 255).to(torch.uint8)
        count = repetitions(label if enlarged else student, elements)

        def evaluate(times: int) -> tuple[Tensor, Tensor]:
            leaf, *others = (x.repeat(times, *[1] * (x.dim() - 1)) for x in (student, teacher, label))
            total, _ = function(leaf.requires_grad_(), *others, **weights, backend=backend)
            (gradient,) = torch.autograd.grad(total, leaf, torch.full_like(total, times))
            return total.detach(), gradient

        (small, expected), (large, gradient) = evaluate(1), evaluate(count)
        assert max(label.numel(), student.numel()) * count > elements
        torch.testing.assert_close(large, small, rtol=1e-5, atol=0)
        assert_repeats(gradient, expected, 2**-7)

    return run


def _reasoning_loss(device: torch.device, backend: str, elements: int) -> None:
    feature, feature_old = (_logits((1, 256, 64, 64), device, seed) / 3 for seed in (0, 1))
    weight, weight_old = (_logits((15, 256), device, seed).float() / 30 for seed in (2, 3))
    count = repetitions(feature, elements)

    def evaluate(times: int) -> tuple[Tensor, Tensor, Tensor]:
        leaf, old = (x.repeat(times, 1, 1, 1) for x in (feature, feature_old))
        leaves = leaf.requires_grad_(), weight.clone().requires_grad_()
        total, _ = ciss_fast.reasoning_loss(leaves[0], leaves[1], old, weight_old, pos=5.0, neg=5.0, backend=backend)
        on_feature, on_weight = torch.autograd.grad(total, leaves, torch.full_like(total, times))
        return total.detach(), on_feature, on_weight / times

    (small, on_feature, on_weight), (large, large_on_feature, large_on_weight) = evaluate(1), evaluate(count)
    torch.testing.assert_close(large, small, rtol=1e-5, atol=0)
    assert_repeats(large_on_feature, on_feature, 2**-7)
    assert_repeats(large_on_weight, on_weight, 1e-4)


def _prototypes(device: torch.device, backend: str, elements: int) -> None:
    previous, current = (_logits((64, 256), device, seed) for seed in (0, 1))
    memory = _logits((2, 4, 256), device, 2)
    count = repetitions(previous, elements)
    small = ciss_fast.prototypes(previous, current, memory, backend=backend)
    large = ciss_fast.prototypes(*(x.repeat(count, 1) for x in (previous, current)), memory, backend=backend)
    for value, expected in zip(large, small, strict=True):
        assert_repeats(value, expected, 1e-4)


def _rotated_memory(device: torch.device, backend: str, elements: int) -> None:
    case = BY_NAME["cayley_rotate"]
    params = case.tensors(torch.float32, device)["params"][:1]
    vectors = _logits((1, 64, 16), device, 0)
    count = repetitions(vectors, elements)
    small = ciss_fast.cayley_rotate(params, vectors, backend=backend)
    large = ciss_fast.cayley_rotate(params, vectors.repeat(1, count, 1), backend=backend)
    assert_repeats(large[0], small[0], 2**-7)


def _many_rotations(device: torch.device, backend: str, elements: int) -> None:
    """Both ops that take parameters; repeated classes have the same mean and compete with copies of themselves."""
    generator = torch.Generator().manual_seed(0)
    dimension, classes = 768, 3
    params = (torch.randn(classes, dimension * (dimension - 1) // 2, generator=generator) / 100).to(device)
    inputs = [torch.rand(classes, dimension, generator=generator).to(device) for _ in range(3)]
    count = repetitions(params, elements)

    def evaluate(times: int) -> tuple[Tensor, ...]:
        leaf, previous, current, weight = (x.repeat(times, 1) for x in (params, *inputs))
        leaf.requires_grad_()
        bias = torch.zeros(len(weight), device=device)
        total, terms = ciss_fast.rotation_loss(leaf, previous, current, weight, bias, 0.9, backend=backend)
        (gradient,) = torch.autograd.grad(total, leaf, torch.full_like(total, times))
        return terms["fid"], terms["reg"] - math.log(times), gradient

    small, large = evaluate(1), evaluate(count)
    assert large[2].numel() > elements
    for value, expected in zip(large[:2], small[:2], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)
    assert_repeats(large[2], small[2], 1e-3)
    del large
    rotated = ciss_fast.cayley_rotate(params, inputs[0], backend=backend)
    many = ciss_fast.cayley_rotate(params.repeat(count, 1), inputs[0].repeat(count, 1), backend=backend)
    assert_repeats(many, rotated, 1e-5)


def _predict(device: torch.device, backend: str, elements: int) -> None:
    logits = _logits((1, 3, 32, 32), device, 0)
    count = elements // 512**2 + 2
    small = ciss_fast.predict(logits, (512, 512), backend=backend)
    large = ciss_fast.predict(logits.repeat(count, 1, 1, 1), (512, 512), backend=backend)
    assert large.numel() > elements
    assert_repeats(large, small, 0)


def _confusion(device: torch.device, backend: str, elements: int) -> None:
    logits = _logits((1, 3, 32, 32), device, 0)
    label = (torch.arange(512**2, device=device).view(1, 512, 512) % 3).to(torch.uint8)
    count = repetitions(label, elements)
    small = ciss_fast.confusion(logits, label, 3, backend=backend)
    large = ciss_fast.confusion(logits.repeat(count, 1, 1, 1), label.repeat(count, 1, 1), 3, backend=backend)
    assert torch.equal(large, small * count)


_ALIFE = {"ce": 1.0, "ali": 3.0, "kd": 1.0}
_DKD = {"mbce": 1.0, "kd": 5.0, "ac": 1.0}
LARGE = (
    LargeCase("softmax_loss", BY_NAME["softmax_loss"], _loss(ciss_fast.softmax_loss, _ALIFE, 21, False), 48),
    LargeCase("softmax_loss, labels", BY_NAME["softmax_loss"], _loss(ciss_fast.softmax_loss, _ALIFE, 3, True), 16),
    LargeCase("sigmoid_loss", BY_NAME["sigmoid_loss"], _loss(ciss_fast.sigmoid_loss, _DKD, 21, False), 48),
    LargeCase("sigmoid_loss, labels", BY_NAME["sigmoid_loss"], _loss(ciss_fast.sigmoid_loss, _DKD, 3, True), 16),
    LargeCase("reasoning_loss", BY_NAME["reasoning_loss"], _reasoning_loss, 48),
    LargeCase("prototypes", BY_NAME["prototypes"], _prototypes, 32),
    LargeCase("cayley_rotate, memory", BY_NAME["cayley_rotate, memory"], _rotated_memory, 48),
    LargeCase("rotation_loss and cayley_rotate, parameters", BY_NAME["rotation_loss"], _many_rotations, 64),
    LargeCase("predict", BY_NAME["predict"], _predict, 8),
    LargeCase("confusion", BY_NAME["confusion"], _confusion, 8),
)
WAYS = [pytest.param(one, backend, id=f"{one.name}-{backend}") for one in LARGE for backend in kernels(one.case)]


@pytest.fixture
def memory_given_back(device):
    """Blocks that are cached for other tests are given back before and after."""
    torch.cuda.empty_cache()
    yield
    torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.parametrize(("large", "backend"), WAYS)
def test_more_than_two_to_the_31(large: LargeCase, backend: str, device, memory_given_back) -> None:
    skip_unless_it_runs(large.case, backend, device, torch.float32)
    free, _ = torch.cuda.mem_get_info(device)
    if free < large.gibibytes * GIB:
        pytest.skip(f"needs {large.gibibytes} GiB of the GPU's memory, {free / GIB:.1f} GiB are free")
    large.run(device, backend, MORE_THAN)


@pytest.mark.parametrize("large", LARGE, ids=lambda large: large.name)
def test_the_comparison_on_small_tensors(large: LargeCase) -> None:
    backend = "reference" if ciss_fast.backends.table()[large.case.op]["cpu"] else "cpu"
    large.run(torch.device("cpu"), backend, 1)
