"""Element types, memory layouts and sizes of features and classifiers, and the incoming gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

FLOAT_TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Several images in a tile, several tiles in an image; no number of pixels is a multiple of a tile's.
SIZES = {"small": (9, (6, 7)), "medium": (3, (23, 25)), "large": (2, (70, 66))}


def strided(x: Tensor) -> Tensor:
    """The same values with gaps between them along every axis, and not at the storage's beginning."""
    room = torch.full([2 * n + 1 for n in x.shape], float("nan")).to(x.dtype)
    view = room[tuple(slice(1, None, 2) for _ in x.shape)]
    view.copy_(x)
    return view


LAYOUTS = {
    "contiguous": torch.clone,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "strided": strided,
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "channels first of all": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "images last": lambda x: x.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
    "some channels": lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
    "some channels, last": lambda x: torch.cat([x, x], dim=1).contiguous(memory_format=torch.channels_last)[
        :, : x.shape[1]
    ],
    "a crop": lambda x: torch.cat([x, x], dim=3)[..., : x.shape[3]],
    "a crop, channels last": lambda x: torch.cat([x, x], dim=3).contiguous(memory_format=torch.channels_last)[
        ..., : x.shape[3]
    ],
}


def draw(reasoning_inputs, size: str, **options):
    batch, shape = SIZES[size]
    return reasoning_inputs(batch=batch, size=shape, **options)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout_old", ["contiguous", "channels last", "strided"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_features(reasoning_inputs, reasoning_matches, layout, layout_old, size) -> None:
    inputs = draw(reasoning_inputs, size, channels_old=3)
    feature, feature_old = LAYOUTS[layout](inputs.feature), LAYOUTS[layout_old](inputs.feature_old)
    assert torch.equal(feature, inputs.feature) and torch.equal(feature_old, inputs.feature_old)
    reasoning_matches(inputs._replace(feature=feature, feature_old=feature_old))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_as_leaves(reasoning_inputs, reasoning_define, reasoning_close, needs_kernel, layout, size) -> None:
    # The features' own strides reach the operator, and the gradient has the layout autograd expects.
    import ciss_fast

    inputs = draw(reasoning_inputs, size)
    expected = reasoning_define(inputs, upstream=3.0)
    for dtype, gradient in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        feature = LAYOUTS[layout](inputs.feature.to(dtype)).requires_grad_()
        weight = inputs.weight.to(dtype).requires_grad_()
        total, terms = ciss_fast.reasoning_loss(feature, weight, *inputs[2:], pos=5.0, neg=3.0, backend="cpu")
        gradients = torch.autograd.grad(3 * total, (feature, weight))
        reasoning_close(type(expected)(total.detach(), terms, *gradients), expected, 1e-5, gradient)
        assert gradients[0].stride() == torch.empty_like(feature).stride()


@pytest.mark.parametrize("layout", [strided, lambda x: x.t().contiguous().t(), lambda x: x[:1].expand(x.shape)])
def test_layouts_of_classifiers(reasoning_inputs, reasoning_matches, layout) -> None:
    inputs = draw(reasoning_inputs, "medium")
    for name in ("weight", "weight_old"):
        reasoning_matches(inputs._replace(**{name: layout(getattr(inputs, name))}))


def test_expanded_features(reasoning_inputs, reasoning_matches) -> None:
    for size in SIZES:
        inputs = draw(reasoning_inputs, size)
        for dimension in range(4):
            for name in ("feature", "feature_old"):
                maps = getattr(inputs, name)
                expanded = maps.narrow(dimension, 0, 1).expand(maps.shape)
                reasoning_matches(inputs._replace(**{name: expanded}))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weight_type", FLOAT_TYPES)
@pytest.mark.parametrize("feature_type", FLOAT_TYPES)
def test_mixed_types(reasoning_inputs, reasoning_matches, feature_type, weight_type, memory_format) -> None:
    for size in SIZES:
        inputs = draw(reasoning_inputs, size, memory_format=memory_format)
        for old_type in (torch.bfloat16, torch.float32):
            changed = inputs._replace(
                feature=inputs.feature.to(feature_type),
                weight=inputs.weight.to(weight_type),
                feature_old=inputs.feature_old.to(old_type),
                weight_old=inputs.weight_old.to(weight_type),
            )
            if feature_type != torch.float64 and weight_type == torch.float64:  # which the arithmetic rounds
                single = changed.weight.float().double(), changed.weight_old.float().double()
                changed = changed._replace(weight=single[0], weight_old=single[1])
            reasoning_matches(changed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_half_precision_rounds_nothing_but_the_gradients(
    reasoning_inputs, reasoning_evaluate, needs_kernel, dtype, memory_format
) -> None:
    half = draw(reasoning_inputs, "medium", memory_format=memory_format, dtype=dtype)
    single = half.to(torch.float32)
    for upstream in (1.0, 3.0, 1024.0):
        result = reasoning_evaluate(half, backend="cpu", upstream=upstream)
        expected = reasoning_evaluate(single, backend="cpu", upstream=upstream)
        torch.testing.assert_close(result.total, expected.total, rtol=1e-6, atol=0)
        unit = torch.finfo(dtype).eps
        torch.testing.assert_close(result.feature.float(), expected.feature, rtol=0.51 * unit, atol=1e-6)
        torch.testing.assert_close(result.weight.float(), expected.weight, rtol=0.51 * unit, atol=1e-6)


def test_scaled_half_precision_gradients_do_not_underflow(reasoning_inputs, reasoning_evaluate, needs_kernel) -> None:
    # A loss scaler's factor must come before the rounding.
    inputs = draw(reasoning_inputs, "large", dtype=torch.float16)
    scaled = reasoning_evaluate(inputs, backend="cpu", upstream=65536.0, pos=1e-3).feature
    expected = 65536 * reasoning_evaluate(inputs.to(torch.float32), backend="cpu", pos=1e-3).feature
    assert float(expected.abs().median()) / 65536 < 2**-24
    torch.testing.assert_close(scaled.float(), expected, rtol=1e-3, atol=2**-24)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (31, 33), (1, 600), (600, 1), (13, 40), (40, 41), (64, 65)])
@pytest.mark.parametrize("batch", [1, 3])
def test_sizes_of_maps(reasoning_inputs, reasoning_matches, batch, shape, memory_format) -> None:
    reasoning_matches(reasoning_inputs(batch=batch, size=shape, memory_format=memory_format))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("classes", "channels"),
    [(1, 1), (1, 7), (2, 1), (15, 64), (16, 16), (17, 3), (100, 24), (257, 5), (520, 2), (1000, 2)],
)
def test_numbers_of_classes_and_channels(
    reasoning_inputs, reasoning_matches, classes, channels, memory_format
) -> None:
    for batch, size in ((1, (5, 3)), (2, (26, 21))):
        inputs = reasoning_inputs(
            batch=batch, classes=classes, channels=channels, channels_old=channels + 2, size=size,
            memory_format=memory_format,
        )  # fmt: skip
        # In the gradient on a weight much cancels over the pixels: alone it may be small.
        gradient = 1e-5 if classes * channels > 2 else 1e-4
        reasoning_matches(inputs, gradient=gradient)
        reasoning_matches(inputs, gradient=gradient, neg=1.0)


def test_many_small_images(reasoning_inputs, reasoning_matches) -> None:
    for size in ((1, 1), (2, 2), (3, 5)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            reasoning_matches(reasoning_inputs(batch=1400, size=size, memory_format=memory_format))


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("upstream", [0.0, -2.5, 1e-3, 4096.0])
def test_incoming_gradient(
    reasoning_inputs, reasoning_evaluate, reasoning_define, reasoning_close, needs_kernel, upstream, dtype
) -> None:
    inputs = draw(reasoning_inputs, "small", dtype=dtype)
    result = reasoning_evaluate(inputs, backend="cpu", upstream=upstream)
    expected = reasoning_define(inputs, upstream=upstream)
    rounding = {torch.bfloat16: 2**-8, torch.float16: 1e-2}.get(dtype, 0.0)  # float16: some are denormal at 1e-3
    reasoning_close(result, expected, 1e-5, 1e-5, rounding)


def test_inputs_are_left_alone(reasoning_inputs, reasoning_evaluate, needs_kernel) -> None:
    for size in SIZES:
        inputs = draw(reasoning_inputs, size)
        before = [x.clone() for x in inputs]
        versions = [x._version for x in inputs]
        reasoning_evaluate(inputs, backend="cpu")
        assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))
        assert versions == [x._version for x in inputs]


def test_addresses_do_not_matter(reasoning_inputs, reasoning_matches) -> None:
    for size in SIZES:
        inputs = draw(reasoning_inputs, size)
        for shift in (1, 3):
            moved = [torch.empty(x.numel() + shift, dtype=x.dtype)[shift:].view(x.shape).copy_(x) for x in inputs]
            reasoning_matches(type(inputs)(*moved))
