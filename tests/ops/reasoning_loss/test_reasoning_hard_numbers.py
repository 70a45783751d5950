"""Scores where a careless formula has no digits left or overflows, compared with double precision."""

from __future__ import annotations

import pytest
import torch

FORMATS = [torch.contiguous_format, torch.channels_last]
# Levels of the student's and the teacher's scores: agreeing and contradicting, sure and unsure.
LEVELS = [
    (-5, -7), (-10, -8), (-16, -18), (-25, -23), (-40, -42), (-60, -58),
    (5, 7), (10, 8), (15, 17), (17, 15), (25, 27), (40, 38), (60, 62),
    (-16, -3), (16, 3), (3, 40), (-3, -40), (0, 30), (0, -30),
    (30, -30), (-30, 30), (-5, 40), (5, -40), (100, 0), (-100, 0),
]  # fmt: skip


def with_scores(inputs, student: torch.Tensor, teacher: torch.Tensor):
    """Inputs of two channels and classifiers of 1 and -1: z+ of every class is the first channel of ``student``
    [B, 2, h, w], z- the second, without rounding; the teacher's likewise."""
    weight = torch.tensor([1.0, -1.0], dtype=student.dtype).expand(3, 2).contiguous()
    sign = torch.tensor([1.0, -1.0], dtype=student.dtype)[:, None, None]
    return inputs._replace(feature=student * sign, weight=weight, feature_old=teacher * sign, weight_old=weight)


def levels(inputs, student: float, teacher: float, memory_format, spread: float = 0.5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    z, z_old = (
        (level + spread * torch.randn(2, 2, 9, 11, generator=generator)).to(dtype) for level in (student, teacher)
    )
    changed = with_scores(inputs, z, z_old)
    return changed._replace(feature=changed.feature.contiguous(memory_format=memory_format))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("options", [{"pos": 5.0, "neg": 3.0}, {"pos": 1.0}, {"neg": 1.0}])
@pytest.mark.parametrize(("student", "teacher"), LEVELS)
def test_level(reasoning_inputs, reasoning_matches, student, teacher, options, memory_format) -> None:
    inputs = levels(reasoning_inputs(), student, teacher, memory_format)
    _, expected = reasoning_matches(inputs, **options)
    assert float(expected.total) > 0


@pytest.mark.parametrize(("student", "teacher"), LEVELS)
def test_level_in_double_precision(reasoning_inputs, reasoning_matches, student, teacher) -> None:
    inputs = levels(reasoning_inputs(), student, teacher, torch.contiguous_format, dtype=torch.float64)
    reasoning_matches(inputs, loss=1e-12, gradient=1e-12)


@pytest.mark.parametrize("level", [-40.0, -16.0, 16.0, 40.0])
def test_each_value_has_its_digits(reasoning_inputs, reasoning_matches, level) -> None:
    # One pixel alone, so that no larger value hides it.
    for offset in (0.0, 0.3, -0.7):
        maps = torch.full((1, 2, 1, 1), level + offset)
        reasoning_matches(with_scores(reasoning_inputs(), maps, maps + 1.0))
        reasoning_matches(with_scores(reasoning_inputs(), maps, maps + 0.1), gradient=5e-5)


@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4])
def test_huge_scores(reasoning_inputs, reasoning_matches, scale) -> None:
    generator = torch.Generator().manual_seed(1)
    for sign in (1.0, -1.0):
        z = scale * torch.randn(2, 2, 9, 11, generator=generator)
        z_old = sign * z + scale * 1e-2 * torch.randn(2, 2, 9, 11, generator=generator)
        for student, teacher in ((z, z_old), (z, -z), (torch.zeros_like(z), z), (z, torch.zeros_like(z))):
            reasoning_matches(with_scores(reasoning_inputs(), student, teacher), gradient=1e-4)


@pytest.mark.parametrize("level", [90.0, 500.0, 1e4])
def test_what_single_precision_cannot_hold_is_next_to_nothing(
    reasoning_inputs, reasoning_evaluate, needs_kernel, level
) -> None:
    for sign in (1.0, -1.0):
        inputs = levels(reasoning_inputs(), sign * level, sign * (level + 1), torch.contiguous_format)
        result = reasoning_evaluate(inputs, backend="cpu")
        assert 0 <= float(result.total) < 1e-30
        assert float(result.feature.abs().max()) < 1e-30 and float(result.weight.abs().max()) < 1e-30


@pytest.mark.parametrize("scale", [1e6, 1e30])
def test_scores_beyond_any_use_stay_finite(reasoning_inputs, reasoning_matches, scale) -> None:
    z = scale * torch.tensor([1.0, -1.0, 0.5, -0.25]).reshape(1, 2, 2, 1)
    reasoning_matches(with_scores(reasoning_inputs(), z, -z))


def test_smallest_numbers(reasoning_inputs, reasoning_matches) -> None:
    tiny = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 1.2e-38, -1e-30]).reshape(1, 2, 2, 2)
    for other in (tiny, torch.ones_like(tiny), -torch.ones_like(tiny)):
        reasoning_matches(with_scores(reasoning_inputs(), tiny, other))
        reasoning_matches(with_scores(reasoning_inputs(), other, tiny))


def test_agreement_leaves_no_gradient(reasoning_inputs, reasoning_evaluate, needs_kernel) -> None:
    z = torch.linspace(-90, 90, 2 * 19 * 21).reshape(1, 2, 19, 21)
    result = reasoning_evaluate(with_scores(reasoning_inputs(), z, z), backend="cpu")
    assert float(result.feature.abs().max()) < 1e-8 and float(result.weight.abs().max()) < 1e-6


def test_small_differences(reasoning_inputs, reasoning_matches) -> None:
    # The gradient is the small difference of two sigmoids that are not small.
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(2, 2, 9, 11, generator=generator)
    reasoning_matches(with_scores(reasoning_inputs(), z, z * (1 + 1e-3)), gradient=5e-4)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_long_sums(reasoning_inputs, reasoning_matches, memory_format) -> None:
    # Many equal values: rounding does not cancel.
    inputs = reasoning_inputs(batch=2, classes=3, channels=2, channels_old=2, size=(150, 160))
    z = torch.full((2, 2, 150, 160), 0.3)
    changed = with_scores(inputs, z, z + 0.01)
    feature = changed.feature.contiguous(memory_format=memory_format)
    reasoning_matches(changed._replace(feature=feature), loss=2e-6, gradient=1e-4)


def test_scores_as_a_network_makes_them(reasoning_inputs, reasoning_matches) -> None:
    # Features behind a ReLU, many channels, a teacher close by.
    generator = torch.Generator().manual_seed(4)
    for memory_format in FORMATS:
        inputs = reasoning_inputs(batch=2, channels=256, channels_old=256, classes=15, size=(24, 25))
        feature = inputs.feature.relu().contiguous(memory_format=memory_format)
        feature_old = (feature + 0.1 * torch.randn(feature.shape, generator=generator)).relu()
        weight_old = inputs.weight + 0.1 * torch.randn(inputs.weight.shape, generator=generator)
        changed = inputs._replace(feature=feature, feature_old=feature_old, weight_old=weight_old)
        reasoning_matches(changed)
        assert float((feature[0, :, 0, 0] @ inputs.weight.clamp(min=0).t()).max()) > 20
