"""The same bits for any number of threads, from run to run, and whatever fresh memory holds."""

from __future__ import annotations

import pytest
import torch
from loss_testing import SOFTMAX, same_bits

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


@pytest.mark.parametrize("scale", [3.0, 100.0], ids=["tame", "hot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("batch", "size", "label_size"), CASES)
def test_threads(loss, batch, size, label_size, dtype, scale) -> None:
    inputs = loss.draw(batch=batch, size=size, label_size=label_size, scale=scale, sequential=True, dtype=dtype)
    expected = loss.evaluate(inputs, backend="cpu", **loss.everything)  # on one thread
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for _ in range(2):
            assert same_bits(loss.evaluate(inputs, backend="cpu", **loss.everything), expected)


def test_bits_change_with_the_inputs(loss) -> None:
    # What the tests of this file compare does react to the smallest change.
    inputs = loss.draw()
    expected = loss.evaluate(inputs, backend="cpu", **loss.everything)
    student = inputs.student.clone()
    student[0, 0, 0, 0] += 1e-3
    assert not same_bits(loss.evaluate(inputs._replace(student=student), backend="cpu", **loss.everything), expected)


@pytest.mark.parametrize(("batch", "size", "label_size"), CASES)
def test_images_do_not_depend_on_their_place_in_the_batch(
    loss, batch, size, label_size
) -> None:
    inputs = loss.draw(batch=batch, size=size, label_size=label_size)
    options = {"backend": "cpu", **loss.everything}
    if loss is SOFTMAX:  # averages over regions tie the images together
        options |= {"ali_average": "all", "cce_average": "all", "kd_average": "all"}
    result = loss.evaluate(inputs, **options)
    backwards = loss.evaluate(type(inputs)(*(x.flip(0) for x in inputs)), **options)
    # Not the same bits: the bands an image is cut into depend on its place.
    torch.testing.assert_close(
        backwards.gradient.flip(0), result.gradient, rtol=0, atol=1e-6 * float(result.gradient.abs().max())
    )
    torch.testing.assert_close(backwards.total, result.total, rtol=1e-6, atol=0)


def test_fresh_memory_is_filled(nan_filled) -> None:
    x = torch.zeros(2, 3, 4, 5)
    assert x.new_empty(3, dtype=torch.float64).isnan().all()
    assert torch.empty_like(x, dtype=torch.float64).isnan().all() and torch.empty(3).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("batch", "size", "label_size"), CASES)
def test_what_fresh_memory_holds_does_not_leak(
    loss, request, batch, size, label_size, dtype
) -> None:
    inputs = loss.draw(batch=batch, size=size, label_size=label_size, dtype=dtype)
    inputs = inputs._replace(student=inputs.student.contiguous(memory_format=torch.channels_last))
    expected = [loss.evaluate(inputs, upstream=factor, backend="cpu", **loss.everything) for factor in (1.0, 2.0)]
    request.getfixturevalue("nan_filled")
    for factor, clean in zip((1.0, 2.0), expected, strict=True):
        assert same_bits(loss.evaluate(inputs, upstream=factor, backend="cpu", **loss.everything), clean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_workspace_holds_does_not_leak(loss, dtype) -> None:
    # The kernel keeps its scratch memory from call to call: fill it with NaN, then with other classes and sizes.
    cases = [loss.draw(batch=b, size=s, label_size=n, dtype=dtype) for b, s, n in CASES]
    expected = [loss.evaluate(inputs, backend="cpu", **loss.everything) for inputs in cases]
    for poison in (float("nan"), 1e30):
        for inputs, clean in zip(cases, expected, strict=True):
            for label_size in ((60, 200), (10, 70)):
                large = loss.draw(batch=1, classes=40, old=30, size=(10, 70), label_size=label_size, dtype=dtype)
                large.student.fill_(poison), large.teacher.fill_(poison)
                loss.evaluate(large, backend="cpu", **loss.everything)
            assert same_bits(loss.evaluate(inputs, backend="cpu", **loss.everything), clean)
