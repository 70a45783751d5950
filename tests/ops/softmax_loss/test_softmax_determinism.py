"""The same bits for any number of threads, from run to run, and whatever fresh memory holds."""

from __future__ import annotations

import pytest
import torch

TERMS = ("ce", "cce", "kd", "ckd", "ali", "focal")
EVERYTHING = {"backend": "cpu", **dict.fromkeys(TERMS, 1.0)}
CASES = [  # batch, logits, labels
    (3, (6, 7), (96, 112)),
    (2, (9, 8), (72, 64)),
    (2, (9, 8), (36, 32)),
    (1, (40, 30), (80, 60)),
    (2, (7, 9), (50, 65)),
    (4, (20, 21), (13, 14)),
    (3, (20, 9), (13, 40)),
    (1, (1, 1), (70, 90)),
    (2, (90, 95), (90, 95)),
    (100, (2, 2), (9, 9)),
]


def same(result, expected) -> bool:
    equal = [torch.equal(result.total, expected.total), torch.equal(result.gradient, expected.gradient)]
    return all(equal) and all(torch.equal(result.terms[name], expected.terms[name]) for name in expected.terms)


@pytest.mark.parametrize("scale", [3.0, 100.0], ids=["tame", "hot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("batch", "size", "label_size"), CASES)
def test_threads(softmax_inputs, softmax_evaluate, needs_kernel, batch, size, label_size, dtype, scale) -> None:
    inputs = softmax_inputs(batch=batch, size=size, label_size=label_size, scale=scale, sequential=True, dtype=dtype)
    expected = softmax_evaluate(inputs, **EVERYTHING)  # on one thread
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for _ in range(2):
            assert same(softmax_evaluate(inputs, **EVERYTHING), expected)


def test_bits_change_with_the_inputs(softmax_inputs, softmax_evaluate, needs_kernel) -> None:
    # What the tests of this file compare does react to the smallest change.
    inputs = softmax_inputs()
    expected = softmax_evaluate(inputs, **EVERYTHING)
    student = inputs.student.clone()
    student[0, 0, 0, 0] += 1e-3
    assert not same(softmax_evaluate(inputs._replace(student=student), **EVERYTHING), expected)


@pytest.mark.parametrize(("batch", "size", "label_size"), CASES)
def test_images_do_not_depend_on_their_place_in_the_batch(
    softmax_inputs, softmax_evaluate, needs_kernel, batch, size, label_size
) -> None:
    inputs = softmax_inputs(batch=batch, size=size, label_size=label_size)
    options = {**EVERYTHING, "ali_average": "all", "cce_average": "all", "kd_average": "all"}
    result = softmax_evaluate(inputs, **options)
    backwards = softmax_evaluate(type(inputs)(*(x.flip(0) for x in inputs)), **options)
    # Not the same bits: the bands an image is cut into depend on its place.
    torch.testing.assert_close(
        backwards.gradient.flip(0), result.gradient, rtol=0, atol=1e-6 * float(result.gradient.abs().max())
    )
    torch.testing.assert_close(backwards.total, result.total, rtol=1e-6, atol=0)


@pytest.fixture
def nan_filled(monkeypatch) -> None:
    """Every tensor torch makes without initialising it is full of NaN (integers: of the largest number)."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_fresh_memory_is_filled(nan_filled) -> None:
    x = torch.zeros(2, 3, 4, 5)
    assert x.new_empty(3, dtype=torch.float64).isnan().all()
    assert torch.empty_like(x, dtype=torch.float64).isnan().all() and torch.empty(3).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("batch", "size", "label_size"), CASES)
def test_what_fresh_memory_holds_does_not_leak(
    softmax_inputs, softmax_evaluate, needs_kernel, request, batch, size, label_size, dtype
) -> None:
    inputs = softmax_inputs(batch=batch, size=size, label_size=label_size, dtype=dtype)
    inputs = inputs._replace(student=inputs.student.contiguous(memory_format=torch.channels_last))
    expected = [softmax_evaluate(inputs, upstream=factor, **EVERYTHING) for factor in (1.0, 2.0)]
    request.getfixturevalue("nan_filled")
    for factor, clean in zip((1.0, 2.0), expected, strict=True):
        assert same(softmax_evaluate(inputs, upstream=factor, **EVERYTHING), clean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_workspace_holds_does_not_leak(softmax_inputs, softmax_evaluate, needs_kernel, dtype) -> None:
    # The kernel keeps its scratch memory from call to call: fill it with NaN, then with other classes and sizes.
    cases = [softmax_inputs(batch=b, size=s, label_size=n, dtype=dtype) for b, s, n in CASES]
    expected = [softmax_evaluate(inputs, **EVERYTHING) for inputs in cases]
    for poison in (float("nan"), 1e30):
        for inputs, clean in zip(cases, expected, strict=True):
            for label_size in ((60, 200), (10, 70)):
                large = softmax_inputs(batch=1, classes=40, old=30, size=(10, 70), label_size=label_size, dtype=dtype)
                large.student.fill_(poison), large.teacher.fill_(poison)
                softmax_evaluate(large, **EVERYTHING)
            assert same(softmax_evaluate(inputs, **EVERYTHING), clean)
