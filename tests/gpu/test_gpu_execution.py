"""How the ops' kernels run: streams, devices, captured graphs, without waiting, compiled, under autocast."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from op_cases import NO_BACKEND_NAMED, OpCase, Tensors, assert_same_bits, every_way, skip_unless_it_runs
from torch import Tensor

FLOAT32 = torch.float32


@pytest.mark.gpu
@every_way()
def test_the_current_stream_is_used(case: OpCase, backend: str, device) -> None:
    # The arguments arrive late, on the same stream: a kernel on another one would read what was there before.
    skip_unless_it_runs(case, backend, device, FLOAT32)
    tensors = case.tensors(FLOAT32, device)
    expected = case.evaluate(tensors, backend)
    late = {name: torch.zeros_like(x) for name, x in tensors.items()}
    torch.cuda.synchronize(device)
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        for name, x in tensors.items():
            late[name].copy_(x)
        results = case.evaluate(late, backend)
    stream.synchronize()
    assert_same_bits(results, expected)


@pytest.mark.gpu
@every_way()
def test_tensors_on_a_device_that_is_not_the_current_one(case: OpCase, backend: str, device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    skip_unless_it_runs(case, backend, device, FLOAT32)
    other = torch.device("cuda:1")
    tensors = case.tensors(FLOAT32, other)
    with torch.cuda.device(0):
        results = case.evaluate(tensors, backend)
    assert {value.device for value in results.values()} == {other}
    case.assert_close(results, case.expected(tensors), tensors, FLOAT32)


@pytest.mark.gpu
@every_way()
def test_captured_in_a_graph(case: OpCase, backend: str, device) -> None:
    skip_unless_it_runs(case, backend, device, FLOAT32)
    static = case.tensors(FLOAT32, device)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, loads and allocates what a capture must not
            case.evaluate(static, backend)
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = case.evaluate(static, backend)
    for seed in (1, 2):
        changed = case.tensors(FLOAT32, device, seed)
        for name, x in changed.items():
            static[name].copy_(x)
        for value in results.values():
            value.fill_(-1)
        graph.replay()
        torch.cuda.synchronize(device)
        assert_same_bits(results, case.evaluate(changed, backend))


@pytest.fixture
def synchronisation_is_an_error():
    """Context in which an operation that waits for the GPU raises."""

    class Forbidden:
        def __enter__(self) -> None:
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *exception: object) -> None:
            torch.cuda.set_sync_debug_mode("default")

    return Forbidden()


@pytest.mark.gpu
@every_way()
def test_nothing_waits_for_the_gpu(case: OpCase, backend: str, device, synchronisation_is_an_error) -> None:
    skip_unless_it_runs(case, backend, device, FLOAT32)
    tensors = case.tensors(FLOAT32, device)
    expected = case.evaluate(tensors, backend)
    torch.cuda.synchronize(device)
    with synchronisation_is_an_error:
        results = case.evaluate(tensors, backend)
    assert_same_bits(results, expected)


@pytest.mark.gpu
def test_waiting_is_noticed(device, synchronisation_is_an_error) -> None:
    x = torch.ones(3, device=device)
    with synchronisation_is_an_error, pytest.raises(RuntimeError, match="synchroniz"):
        x.sum().item()


@pytest.mark.gpu(interpreter=True)
@every_way()
def test_compiled_in_one_graph(case: OpCase, backend: str, device) -> None:
    skip_unless_it_runs(case, backend, device, FLOAT32)
    tensors = case.tensors(FLOAT32, device)

    def forward(arguments: Tensors, backend: str) -> Tensors:
        return case.call(**arguments, backend=backend)

    torch.compiler.reset()
    compiler = "inductor" if device.type == "cuda" else "aot_eager"
    call = torch.compile(forward, fullgraph=True, backend=compiler)
    compiled = replace(case, call=lambda backend, **arguments: call(arguments, backend))
    results = compiled.evaluate(tensors, backend)
    case.assert_close(results, case.expected(tensors), tensors, FLOAT32)


@pytest.mark.gpu(interpreter=True)
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@every_way(NO_BACKEND_NAMED, "reference")
def test_autocast_changes_nothing(case: OpCase, backend: str, autocast: torch.dtype, device) -> None:
    # Arguments are taken as they come, of a half-precision type from autocast's layers or float32.
    def call(**arguments: Tensor) -> Tensors:  # backward passes run outside
        with torch.autocast(device.type, autocast):
            return case.call(**arguments)

    for dtype in (FLOAT32, autocast):
        skip_unless_it_runs(case, backend, device, dtype)
        tensors = case.tensors(dtype, device)
        results = replace(case, call=call).evaluate(tensors, backend)
        case.assert_close(results, case.expected(tensors), tensors, dtype)
