"""The same bits from run to run, for any number of threads, and whatever fresh memory holds."""

from __future__ import annotations

import pytest
import torch

from ciss_fast import native

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


def products_are_the_same(inputs) -> bool:
    """Whether torch's products of this case's size have the same bits on one thread and on two.

    A BLAS may cut a long sum for its threads. Products of every kind that the operator makes, on whole maps.
    """
    parts = torch.cat([inputs.weight, inputs.weight])
    maps = inputs.feature.flatten(2)
    rows = maps.transpose(1, 2).reshape(-1, maps.shape[1])
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        scores = torch.mm(rows, parts.t())
        stacked = torch.bmm(parts.expand(len(maps), -1, -1), maps)
        results.append([
            *(scores, stacked, torch.mm(scores, parts), torch.bmm(parts.t().expand(len(maps), -1, -1), stacked)),
            *(torch.mm(scores[:512].t(), rows[:512]), torch.mm(stacked[0, :, :512], maps[0, :, :512].t())),
        ])  # fmt: skip
    torch.set_num_threads(1)
    return all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("batch", "channels", "classes", "size"), CASES)
def test_threads(
    reasoning_inputs, reasoning_evaluate, reasoning_close, needs_kernel, batch, channels, classes, size, memory_format
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs = reasoning_inputs(
            **{"batch": batch, "channels": channels, "channels_old": channels, "classes": classes, "size": size},
            memory_format=memory_format,
        )
        inputs = inputs._replace(feature=inputs.feature.to(dtype))
        expected = reasoning_evaluate(inputs, **EVERYTHING)
        exact = products_are_the_same(inputs._replace(feature=inputs.feature.float()))
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for _ in range(2):
                result = reasoning_evaluate(inputs, **EVERYTHING)
                if threads == 1 or exact:
                    assert same(result, expected)
                else:
                    reasoning_close(result, expected, 1e-6, 1e-6, 2**-8 if dtype == torch.bfloat16 else 0.0)
        torch.set_num_threads(1)


@pytest.mark.parametrize("double_precision", [False, True])
@pytest.mark.parametrize("coefficients", [[1.0], [0.5, 2.0]])
@pytest.mark.parametrize(("count", "run_length"), [(1, 1), (30, 15), (98304, 15), (98301, 100), (100000, 50000)])
def test_threads_of_the_kernel(needs_kernel, count, run_length, coefficients, double_precision) -> None:
    # What is done per score is the same for any number of threads, always.
    dtype = torch.float64 if double_precision else torch.float32
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(count, dtype=dtype, generator=generator) for _ in range(2))
    results = []
    for threads in (1, 2, 3):
        scores = student.clone()
        sums = native.library.reasoning_loss(
            student=scores.data_ptr(),
            teacher=teacher.data_ptr(),
            count=count,
            run_length=run_length,
            coefficients=coefficients,
            need_gradient=True,
            double_precision=double_precision,
            threads=threads,
        )
        results.append((sums, scores))
    for sums, scores in results[1:]:
        assert sums == results[0][0] and torch.equal(scores, results[0][1])
    # And it is right whichever run a score is in.
    term = torch.arange(count) // run_length % len(coefficients)
    z, target = student.double(), teacher.double().sigmoid()
    values = torch.nn.functional.binary_cross_entropy_with_logits(z, target, reduction="none")
    for number, total in enumerate(results[0][0]):
        assert total == pytest.approx(float(values[term == number].sum()), rel=1e-6)
    gradient = torch.tensor(coefficients, dtype=torch.float64)[term] * (z.sigmoid() - target)
    torch.testing.assert_close(results[0][1].double(), gradient, rtol=0, atol=2e-6)


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


@pytest.fixture
def nan_filled(monkeypatch) -> None:
    """Every tensor torch makes without initialising it is full of NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_fresh_memory_is_filled(nan_filled) -> None:
    x = torch.zeros(2, 3, 4, 5)
    assert torch.empty_like(x, dtype=torch.float64).isnan().all() and x.new_empty(3).isnan().all()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_fresh_memory_holds_does_not_leak(
    reasoning_inputs, reasoning_evaluate, needs_kernel, request, dtype, memory_format
) -> None:
    shapes = [(9, (6, 7)), (3, (24, 25)), (2, (40, 41)), (0, (3, 3))]
    layouts = [lambda x: x, lambda x: x.transpose(2, 3).contiguous().transpose(2, 3)]
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
