"""The same bits for any number of threads, from run to run, and whatever fresh memory holds."""

from __future__ import annotations

import pytest
import torch

CASES = [  # classes, dimension, vectors
    (7, 17, None),
    (5, 64, None),
    (3, 256, None),
    (4, 40, 3),
    (4, 40, 20),
    (5, 24, 150),
    (1, 33, 40),
    (9, 1, None),
]
NORMS = [1.0, 50.0]

pytestmark = pytest.mark.usefixtures("needs_kernel")


def same(result, expected) -> bool:
    return all(map(torch.equal, result, expected))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("classes", "dimension", "vectors"), CASES)
def test_threads(cayley_inputs, cayley_evaluate, classes, dimension, vectors, dtype, norm) -> None:
    inputs = cayley_inputs(classes=classes, dimension=dimension, vectors=vectors, norm=norm, dtype=dtype)
    expected = cayley_evaluate(inputs, backend="cpu")  # on one thread
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for _ in range(2):
            assert same(cayley_evaluate(inputs, backend="cpu"), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("classes", "dimension", "vectors"), CASES)
def test_classes_do_not_depend_on_their_neighbours(cayley_inputs, cayley_evaluate, classes, dimension, vectors, norm):
    inputs = cayley_inputs(classes=classes, dimension=dimension, vectors=vectors, norm=norm)
    upstream = torch.ones_like(inputs.vectors)
    whole = cayley_evaluate(inputs, upstream, backend="cpu")
    for k in range(classes):
        part = cayley_evaluate(type(inputs)(*(one[k : k + 1] for one in inputs)), upstream[k : k + 1], backend="cpu")
        assert same(part, [one[k : k + 1] for one in whole])


def test_bits_change_with_the_inputs(cayley_inputs, cayley_evaluate) -> None:
    # What the tests of this file compare does react to the smallest change.
    inputs = cayley_inputs()
    expected = cayley_evaluate(inputs, backend="cpu")
    params = inputs.params.clone()
    params[2, 5] += 1e-3
    result = cayley_evaluate(inputs._replace(params=params), backend="cpu")
    assert torch.equal(result.rotated[:2], expected.rotated[:2]) and not torch.equal(result.rotated, expected.rotated)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("classes", "dimension", "vectors"), CASES)
def test_what_fresh_memory_holds_does_not_leak(
    cayley_inputs, cayley_evaluate, request, classes, dimension, vectors, dtype, norm
) -> None:
    inputs = cayley_inputs(classes=classes, dimension=dimension, vectors=vectors, norm=norm, dtype=dtype)
    expected = cayley_evaluate(inputs, backend="cpu")
    request.getfixturevalue("nan_filled")
    assert torch.empty_like(inputs.vectors).isnan().all()
    assert same(cayley_evaluate(inputs, backend="cpu"), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_workspace_holds_does_not_leak(cayley_inputs, cayley_evaluate, dtype) -> None:
    # The kernel keeps its scratch memory from call to call: fill it with NaN, then with other sizes.
    cases = [
        cayley_inputs(classes=k, dimension=d, vectors=s, norm=norm, dtype=dtype) for k, d, s in CASES for norm in NORMS
    ]
    expected = [cayley_evaluate(inputs, backend="cpu") for inputs in cases]
    for poison in (float("nan"), 1e30):
        for vectors, norm in ((None, 1.0), (None, 50.0), (300, 1.0)):
            large = cayley_inputs(classes=1, dimension=280, vectors=vectors, norm=norm, dtype=dtype)
            for inputs, clean in zip(cases, expected, strict=True):
                cayley_evaluate(large._replace(vectors=torch.full_like(large.vectors, poison)), backend="cpu")
                assert same(cayley_evaluate(inputs, backend="cpu"), clean)
