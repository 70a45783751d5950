"""The losses on logits, to be tested alike: random inputs, evaluation, comparison with the definition.

`SOFTMAX` and `SIGMOID` are the losses. Both take student and teacher logits with old classes first (behind background
or the auxiliary channel) and a label map of channel numbers, so the same inputs serve both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import ciss_fast
from ciss_fast import backends


class Inputs(NamedTuple):
    """Arguments of a loss that are tensors."""

    student: Tensor
    teacher: Tensor | None
    label: Tensor


class Result(NamedTuple):
    """What a call returned, and the gradient on the student."""

    total: Tensor
    terms: dict[str, Tensor]
    gradient: Tensor


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


@dataclass(frozen=True)
class LossUnderTest:
    """One of the losses.

    Attributes:
        name: the op's name.
        function: the public function.
        mix: weights and options as a method uses them, with a teacher.
        base: the same without a teacher.
        everything: all terms.
        unread: value of the teacher's channel 0, where the loss does not read it.
    """

    name: str
    function: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    mix: dict[str, Any]
    base: dict[str, Any]
    everything: dict[str, Any]
    unread: float | None = None

    @property
    def first_term(self) -> str:
        """The name of the term on labels alone."""
        return next(iter(self.everything))

    @property
    def kernel_missing(self) -> str | None:
        """Why the compiled kernel cannot run here, or None."""
        return backends.table()[self.name]["cpu"]

    @property
    def backend(self) -> str:
        """The compiled kernel where it can run, else the definition."""
        return "reference" if self.kernel_missing else "cpu"

    def draw(
        self,
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
        """Normal logits of deviation ``scale`` and a label map with unlabelled, new, ignored (and old) pixels.

        The student has ``classes`` channels, the teacher the first ``old`` of them.
        """
        generator = torch.Generator().manual_seed(seed)
        student = scale * torch.randn(batch, classes, *size, generator=generator)
        logits = scale * torch.randn(batch, old, *size, generator=generator)
        label = draw_labels(generator, (batch, *label_size), classes, old, sequential)
        if self.unread is not None:
            logits[:, :1] = self.unread
        return Inputs(student.to(dtype), logits.to(dtype) if teacher else None, label)

    def evaluate(self, inputs: Inputs, *, upstream: float = 1.0, **options: Any) -> Result:
        """Loss, terms and gradient with a copy of the student as leaf; ``upstream`` is the incoming gradient."""
        student = inputs.student.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        total, terms = self.function(student, inputs.teacher, inputs.label, **options)
        (gradient,) = torch.autograd.grad(total, student, torch.full_like(total, upstream))
        return Result(total.detach(), terms, gradient)

    def define(self, inputs: Inputs, **options: Any) -> Result:
        """The definition's answer in double precision, on the same (rounded) inputs."""
        teacher = None if inputs.teacher is None else inputs.teacher.double()
        options["backend"] = "reference"
        return self.evaluate(Inputs(inputs.student.double(), teacher, inputs.label), **options)

    def matches(
        self,
        inputs: Inputs,
        *,
        loss: float | None = None,
        gradient: float | None = None,
        absolute: float = 0.0,
        **options: Any,
    ) -> tuple[Result, Result]:
        """Compare the kernel with the definition.

        Tolerances by default: 1e-5 (1e-11 in double precision), and for the gradient of half-precision logits the
        rounding to their type besides. Where there is no kernel the definition in single precision takes its place,
        with a hundred times the tolerance: PyTorch's interpolation is not as exact.
        """
        double = inputs.student.dtype == torch.float64
        rounding = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(inputs.student.dtype, 0.0)
        result, expected = self.evaluate(inputs, backend=self.backend, **options), self.define(inputs, **options)
        assert result.gradient.dtype == inputs.student.dtype
        assert result.total.dtype == (torch.float64 if double else torch.float32)
        loss = loss or (1e-11 if double else 1e-5)
        gradient = gradient or (1e-11 if double else 1e-5) + rounding
        if self.backend == "reference":
            loss, gradient = 100 * loss, 100 * gradient
        assert_close(result, expected, options, loss, gradient, absolute)
        return result, expected


def assert_close(
    result: Result, expected: Result, options: dict[str, Any], loss: float, gradient: float, absolute: float = 0.0
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


def same_bits(result: Result, expected: Result) -> bool:
    """Whether totals, terms and gradients are equal to the bit."""
    equal = [torch.equal(result.total, expected.total), torch.equal(result.gradient, expected.gradient)]
    return all(equal) and all(torch.equal(result.terms[name], expected.terms[name]) for name in expected.terms)


def same_gradient(result: Result, expected: Result) -> bool:
    """The same gradient to the bit; the total may have been added up in another order."""
    rounding = 1e-13 if result.total.dtype == torch.float64 else 1e-6
    close = abs(float(result.total) - float(expected.total)) <= rounding * abs(float(expected.total))
    return close and torch.equal(result.gradient, expected.gradient)


def skip_without_kernel(loss: LossUnderTest) -> None:
    """Skip a test that needs the compiled kernel where it is missing."""
    if loss.kernel_missing:
        pytest.skip(f"no compiled kernel: {loss.kernel_missing}")


SOFTMAX = LossUnderTest(
    "softmax_loss",
    ciss_fast.softmax_loss,
    mix={"ce": 1.0, "ali": 3.0, "kd": 1.0},
    base={"ce": 1.0},
    everything=dict.fromkeys(("ce", "cce", "kd", "ckd", "ali", "focal"), 1.0),
)
SIGMOID = LossUnderTest(
    "sigmoid_loss",
    ciss_fast.sigmoid_loss,
    mix={"mbce": 1.0, "kd": 5.0, "ac": 1.0},
    base={"mbce": 1.0, "ac": 1.0, "pos_weight": 2.0},
    everything={"mbce": 1.0, "kd": 1.0, "ac": 1.0, "pos_weight": 35.0},
    unread=float("nan"),
)
LOSSES = (SOFTMAX, SIGMOID)
