"""Random inputs for the softmax loss, and comparison with its definition in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import ciss_fast
from ciss_fast import native

TERMS = ("ce", "cce", "kd", "ckd", "ali", "focal")


class Inputs(NamedTuple):
    """Arguments of `softmax_loss` that are tensors."""

    student: Tensor
    teacher: Tensor | None
    label: Tensor


class Result(NamedTuple):
    """What a call returned, and the gradient on the student (None if it was not asked for)."""

    total: Tensor
    terms: dict[str, Tensor]
    gradient: Tensor | None


def draw_labels(
    generator: torch.Generator, shape: tuple[int, int, int], classes: int, old: int, sequential: bool
) -> Tensor:
    """Label map of blocks, like real ones, with a band of noise: every region the number of classes allows."""
    batch, height, width = shape
    values = [0, 255, *range(1 if sequential else old, classes)]
    weights = torch.ones(len(values))
    weights[0], weights[1] = len(values), len(values) / 4
    drawn = torch.multinomial(weights, batch * height * width, replacement=True, generator=generator)
    noise = torch.tensor(values)[drawn].reshape(shape)
    blocks = noise.clone()
    for i in range(0, height, 5):
        for j in range(0, width, 7):
            blocks[:, i : i + 5, j : j + 7] = noise[:, i, j, None, None]
    noisy = torch.arange(height) % 16 < 6
    return torch.where(noisy[None, :, None], noise, blocks)


def draw_inputs(
    *,
    batch: int = 2,
    classes: int = 7,
    old: int = 4,
    size: tuple[int, int] = (4, 5),
    label_size: tuple[int, int] = (32, 40),
    scale: float = 3.0,
    teacher: bool = True,
    sequential: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Inputs:
    """Normal logits of deviation ``scale`` and a label map with unlabelled, new, ignored (and old) pixels."""
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(batch, classes, *size, generator=generator)
    logits = scale * torch.randn(batch, old, *size, generator=generator)
    label = draw_labels(generator, (batch, *label_size), classes, old, sequential)
    return Inputs(student.to(dtype), logits.to(dtype) if teacher else None, label)


def evaluate(inputs: Inputs, *, upstream: float = 1.0, **options) -> Result:
    """Loss, terms and gradient with a copy of the student as leaf; ``upstream`` is the incoming gradient."""
    student = inputs.student.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    total, terms = ciss_fast.softmax_loss(student, inputs.teacher, inputs.label, **options)
    (gradient,) = torch.autograd.grad(total, student, torch.tensor(upstream, dtype=total.dtype))
    return Result(total.detach(), terms, gradient)


def define(inputs: Inputs, **options) -> Result:
    """The definition's answer in double precision, on the same (rounded) inputs."""
    teacher = None if inputs.teacher is None else inputs.teacher.double()
    options["backend"] = "reference"
    return evaluate(Inputs(inputs.student.double(), teacher, inputs.label), **options)


def assert_close(
    result: Result, expected: Result, options: dict, loss: float, gradient: float, absolute: float = 0.0
) -> None:
    """Terms and total within ``loss`` relative (or ``absolute``), gradient within ``gradient`` of its largest entry.

    The total's error is measured against the sum of its parts, which is the total for weights above 0.
    """
    assert result.terms.keys() == expected.terms.keys()
    allowed = 0.0
    for name, value in expected.terms.items():
        error = abs(float(result.terms[name]) - float(value))
        if name.startswith("pixels_"):
            assert error == 0, f"{name}: {int(result.terms[name])}, expected {int(value)}"
            continue
        bound = loss * abs(float(value)) + absolute
        assert error <= bound, f"{name}: {float(result.terms[name])}, expected {float(value)}"
        allowed += abs(options[name]) * bound
    error = abs(float(result.total) - float(expected.total))
    assert error <= allowed, f"total: {float(result.total)}, expected {float(expected.total)}"
    assert result.gradient.shape == expected.gradient.shape
    if expected.gradient.numel():
        largest = float(expected.gradient.abs().max())
        error = float((result.gradient.double() - expected.gradient.double()).abs().max())
        assert error <= gradient * largest, f"gradient: off by {error / max(largest, 1e-300):.2e} of its largest"


def assert_matches(
    inputs: Inputs,
    *,
    loss: float | None = None,
    gradient: float | None = None,
    absolute: float = 0.0,
    **options,
) -> tuple[Result, Result]:
    """Compare the kernel with the definition.

    Tolerances by default: 1e-5 (1e-11 in double precision), and for the gradient of half-precision logits the
    rounding to their type besides.
    """
    double = inputs.student.dtype == torch.float64
    rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(inputs.student.dtype, 0.0)
    result, expected = evaluate(inputs, backend="cpu", **options), define(inputs, **options)
    assert result.gradient.dtype == inputs.student.dtype
    assert result.total.dtype == (torch.float64 if double else torch.float32)
    loss = loss or (1e-11 if double else 1e-5)
    gradient = gradient or (1e-11 if double else 1e-5) + rounding
    assert_close(result, expected, options, loss, gradient, absolute)
    return result, expected


@pytest.fixture(scope="session")
def softmax_inputs() -> Callable[..., Inputs]:
    """Function that draws student, teacher and label: see `draw_inputs`."""
    return draw_inputs


@pytest.fixture(scope="session")
def softmax_evaluate() -> Callable[..., Result]:
    """Function from inputs and options to total, terms and gradient: see `evaluate`."""
    return evaluate


@pytest.fixture(scope="session")
def softmax_define() -> Callable[..., Result]:
    """The same from the definition in double precision: see `define`."""
    return define


@pytest.fixture(scope="session")
def softmax_close() -> Callable[..., None]:
    """Function that compares two results: see `assert_close`."""
    return assert_close


@pytest.fixture(scope="session")
def softmax_matches(needs_kernel: None) -> Callable[..., tuple[Result, Result]]:
    """Function that compares the kernel with the definition: see `assert_matches`."""
    return assert_matches


@pytest.fixture(scope="session")
def needs_kernel() -> None:
    """Skips where there are no compiled kernels."""
    if native.library is None:
        pytest.skip(f"no compiled kernels: {native.unavailable_reason}")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A single thread unless a test sets more: on maps this small they would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
