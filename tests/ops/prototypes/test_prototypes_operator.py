"""`prototypes` as a PyTorch operator: registration, compilation, gradients, threads, memory that is not initialised."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import ciss_fast

SIZES = [(50, 3, 7, 13), (700, 9, 30, 256), (1, 1, 1, 1), (2000, 2, 4, 300)]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def same(result, expected) -> bool:
    return all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16], ids=str)
def test_opcheck(dtype, kernel, prototype_inputs) -> None:
    op = torch.ops.ciss_fast.prototypes.default
    inputs = prototype_inputs(dtype=dtype)
    torch.library.opcheck(op, (*inputs, 10.0))
    torch.library.opcheck(op, (inputs.feature_prev.float(), inputs.feature_curr.T.contiguous().T, inputs.memory, 3.0))
    torch.library.opcheck(op, (*prototype_inputs(5, 0, dtype=dtype), 1.0))


@pytest.mark.parametrize("dynamic", [None, True])
def test_compiles_without_a_graph_break(dynamic, backend, prototype_inputs) -> None:
    torch._dynamo.reset()

    def evaluate(prev, curr, memory, temperature):
        prev, curr = ciss_fast.prototypes(2 * prev, curr, memory, temperature, backend=backend)
        return prev - prev.mean(dim=0), curr + 1

    compiled = torch.compile(evaluate, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for positions, classes, temperature in ((50, 3, 10.0), (41, 3, 5.0), (30, 2, 2.0)):
        inputs = prototype_inputs(positions, classes)
        for result, expected in zip(compiled(*inputs, temperature), evaluate(*inputs, temperature), strict=True):
            assert result.dtype == expected.dtype
            torch.testing.assert_close(result, expected, rtol=0, atol=0 if backend == "cpu" else 1e-5)


def test_inputs_that_require_a_gradient_are_detached(backend, prototype_inputs) -> None:
    inputs = prototype_inputs()
    expected = ciss_fast.prototypes(*inputs, backend=backend)
    leaves = [t.clone().requires_grad_() for t in inputs]
    for source in (leaves, [t * 1 for t in leaves]):
        result = ciss_fast.prototypes(*source, backend=backend)
        assert same(result, expected) and not any(t.requires_grad for t in result)


def test_inference_mode(backend, prototype_inputs) -> None:
    inputs = prototype_inputs()
    expected = ciss_fast.prototypes(*inputs, backend=backend)
    with torch.inference_mode():
        assert same(ciss_fast.prototypes(*(t.clone() for t in inputs), backend=backend), expected)


def test_autocast_casts_nothing(backend, close_positions) -> None:
    inputs = close_positions(60, 2, 50, 32)
    expected = ciss_fast.prototypes(*inputs, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert same(ciss_fast.prototypes(*inputs, backend=backend), expected)


def test_inputs_stay_as_they_are(backend, prototype_inputs) -> None:
    inputs = prototype_inputs()
    before = [t.clone() for t in inputs]
    ciss_fast.prototypes(*inputs, backend=backend)
    assert same(inputs, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_number_of_threads_changes_nothing(sizes, dtype, kernel, prototype_inputs) -> None:
    inputs = prototype_inputs(*sizes, dtype=dtype)
    expected = torch.ops.ciss_fast.prototypes(*inputs, 10.0)  # on one thread
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for _ in range(2):
            assert same(torch.ops.ciss_fast.prototypes(*inputs, 10.0), expected)


def test_bits_change_with_the_inputs(kernel, prototype_inputs) -> None:
    # What the tests of this file compare does react to a small change.
    inputs = prototype_inputs()
    expected = torch.ops.ciss_fast.prototypes(*inputs, 10.0)
    inputs.memory[2, 3, 4] += 1e-3
    assert not same(torch.ops.ciss_fast.prototypes(*inputs, 10.0), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_what_fresh_memory_holds_does_not_leak(sizes, dtype, kernel, prototype_inputs, request) -> None:
    inputs = prototype_inputs(*sizes, dtype=dtype)
    expected = torch.ops.ciss_fast.prototypes(*inputs, 10.0)
    request.getfixturevalue("nan_filled")
    assert torch.empty(3).isnan().all()
    assert same(torch.ops.ciss_fast.prototypes(*inputs, 10.0), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_the_workspace_holds_does_not_leak(dtype, kernel, prototype_inputs) -> None:
    # The kernel keeps its scratch memory from call to call: fill it with NaN first.
    cases = [prototype_inputs(*sizes, dtype=dtype) for sizes in SIZES]
    expected = [torch.ops.ciss_fast.prototypes(*inputs, 10.0) for inputs in cases]
    poisons = [prototype_inputs(*sizes, dtype=torch.float64) for sizes in ((600, 9, 40, 257), (90, 9, 250, 2000))]
    for inputs, clean in zip(cases, expected, strict=True):
        for poison in poisons:
            for value in (torch.nan, 1e300):
                torch.ops.ciss_fast.prototypes(*(torch.full_like(t, value) for t in poison), 10.0)
        assert same(torch.ops.ciss_fast.prototypes(*inputs, 10.0), clean)


def test_calls_from_several_python_threads(kernel, prototype_inputs) -> None:
    many = [prototype_inputs(200, 3, 20, 40, seed=i) for i in range(6)]
    expected = [ciss_fast.prototypes(*inputs) for inputs in many]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            results = list(pool.map(lambda inputs: ciss_fast.prototypes(*inputs), many))
            assert all(same(result, alone) for result, alone in zip(results, expected, strict=True))
