"""The same bits from run to run, for any number of threads, and whatever fresh memory holds."""

from __future__ import annotations

import pytest
import torch

EVERYTHING = {"backend": "cpu", "pos": 5.0, "neg": 3.0}
FORMATS = [torch.contiguous_format, torch.channels_last]
CASES = [  # batch, channels, classes, size
    (4, 256, 15, (32, 32)),
    (1, 256, 100, (32, 32)),
    (2, 64, 20, (33, 33)),
    (9, 64, 5, (6, 7)),
    (2, 16, 300, (20, 41)),
    (1, 256, 15, (1, 1)),
    (1, 8, 3, (90, 95)),
]


def same(result, expected) -> bool:
    equal = [torch.equal(getattr(result, name), getattr(expected, name)) for name in ("total", "feature", "weight")]
    return all(equal) and all(torch.equal(result.terms[name], expected.terms[name]) for name in expected.terms)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("batch", "channels", "classes", "size"), CASES)
def test_threads(
    reasoning_inputs, reasoning_evaluate, needs_kernel, batch, channels, classes, size, memory_format
) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        inputs = reasoning_inputs(
            **{"batch": batch, "channels": channels, "channels_old": channels + 1, "classes": classes, "size": size},
            **{"memory_format": memory_format, "dtype": dtype},
        )
        expected = reasoning_evaluate(inputs, **EVERYTHING)  # on one thread
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for _ in range(2):
                assert same(reasoning_evaluate(inputs, **EVERYTHING), expected)
        torch.set_num_threads(1)


def test_bits_change_with_the_inputs(reasoning_inputs, reasoning_evaluate, needs_kernel) -> None:
    # What the tests of this file compare does react to the smallest change.
    inputs = reasoning_inputs()
    expected = reasoning_evaluate(inputs, **EVERYTHING)
    feature = inputs.feature.clone()
    feature[0, 0, 0, 0] += 1e-3
    assert not same(reasoning_evaluate(inputs._replace(feature=feature), **EVERYTHING), expected)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_images_do_not_depend_on_their_place_in_the_batch(
    reasoning_inputs, reasoning_evaluate, needs_kernel, memory_format
) -> None:
    for batch, size in ((9, (6, 7)), (3, (40, 41))):
        inputs = reasoning_inputs(batch=batch, size=size, memory_format=memory_format)
        result = reasoning_evaluate(inputs, **EVERYTHING)
        flipped = inputs._replace(feature=inputs.feature.flip(0), feature_old=inputs.feature_old.flip(0))
        backwards = reasoning_evaluate(flipped, **EVERYTHING)
        torch.testing.assert_close(backwards.feature.flip(0), result.feature, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(backwards.total, result.total, rtol=1e-6, atol=0)


def test_fresh_memory_is_filled(nan_filled) -> None:
    x = torch.zeros(2, 3, 4, 5)
    assert torch.empty_like(x, dtype=torch.float64).isnan().all() and x.new_empty(3).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_workspace_holds_does_not_leak(reasoning_inputs, reasoning_evaluate, needs_kernel, dtype) -> None:
    # The kernel keeps its scratch memory from call to call: fill it with NaN, then with other classes and sizes.
    cases = [
        reasoning_inputs(batch=b, channels=d, channels_old=d + 3, classes=c, size=s, dtype=dtype)
        for b, d, c, s in CASES[2:]
    ]
    expected = [reasoning_evaluate(inputs, **EVERYTHING) for inputs in cases]
    for poison in (float("nan"), 1e30):
        for inputs, clean in zip(cases, expected, strict=True):
            large = reasoning_inputs(batch=1, channels=260, channels_old=280, classes=120, size=(12, 11), dtype=dtype)
            large.feature.fill_(poison), large.feature_old.fill_(poison)
            reasoning_evaluate(large, **EVERYTHING)
            assert same(reasoning_evaluate(inputs, **EVERYTHING), clean)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_fresh_memory_holds_does_not_leak(
    reasoning_inputs, reasoning_evaluate, needs_kernel, request, dtype, memory_format
) -> None:
    shapes = [(9, (6, 7)), (3, (24, 25)), (2, (40, 41)), (0, (3, 3))]
    layouts = [torch.clone, lambda x: x.transpose(2, 3).contiguous().transpose(2, 3)]
    cases = []
    for batch, size in shapes:
        for layout in layouts:
            inputs = reasoning_inputs(batch=batch, size=size, dtype=dtype, memory_format=memory_format)
            cases.append(inputs._replace(feature=layout(inputs.feature)))
    expected = [reasoning_evaluate(inputs, upstream=f, **EVERYTHING) for inputs in cases for f in (1.0, 2.0)]
    request.getfixturevalue("nan_filled")
    results = [reasoning_evaluate(inputs, upstream=f, **EVERYTHING) for inputs in cases for f in (1.0, 2.0)]
    for result, clean in zip(results, expected, strict=True):
        assert same(result, clean)
