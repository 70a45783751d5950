"""Which backend runs an op: by argument, by environment, by order of preference."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ciss_fast import backends, triton_runtime

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")


@pytest.fixture(autouse=True)
def no_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """No op is registered yet, and the environment asks for nothing."""
    monkeypatch.setattr(backends, "_ops", {})
    monkeypatch.setattr(backends, "_environment", {})
    for variable in ("CISS_FAST_BACKEND", "CISS_FAST_BACKEND_SOME_OP", "TRITON_INTERPRET"):
        monkeypatch.delenv(variable, raising=False)


def test_asked_for_by_name() -> None:
    backends.register("some_op", reference=None, cpu="for a reason")
    backends.require("some_op", "reference")
    with pytest.raises(RuntimeError, match="^some_op: backend 'cpu' cannot run here: for a reason$"):
        backends.require("some_op", "cpu")
    with pytest.raises(ValueError, match="^some_op: backend must be one of reference, cpu, got 'gpu'$"):
        backends.require("some_op", "gpu")


def test_an_op_registers_once() -> None:
    backends.register("some_op", reference=None)
    with pytest.raises(ValueError, match="'some_op' is registered already"):
        backends.register("some_op", reference=None)


def test_first_that_runs_on_the_device() -> None:
    backends.register("some_op", reference=None, cpu=None, triton=lambda: None, cuda=None)
    backends.register("cuda_first", reference=None, cpu="not built", cuda=lambda: None, triton=None)
    backends.register("nothing_runs", reference=None, cpu="not built", triton=lambda: "no GPU", cuda="not built")
    chosen = {op: [backends.choose(op, None, device) for device in (CPU, CUDA, META)] for op in backends.table()}
    assert chosen == {
        "some_op": ["cpu", "triton", "reference"],
        "cuda_first": ["reference", "cuda", "reference"],
        "nothing_runs": ["reference", "reference", "reference"],
    }
    assert backends.choose("some_op", "cuda", CUDA) == "cuda"
    assert backends.choose("some_op", "reference", CUDA) == "reference"


def test_tensors_on_another_device() -> None:
    backends.register("some_op", reference=None, cpu=None, triton=None, cuda=None)
    for backend, needed, device in (("cpu", "cpu", CUDA), ("triton", "cuda", CPU), ("cuda", "cuda", CPU)):
        with pytest.raises(
            RuntimeError, match=f"^some_op: backend '{backend}' needs tensors on {needed}, got {device}$"
        ):
            backends.choose("some_op", backend, device)


def test_interpreter_takes_tensors_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    backends.register("some_op", reference=None, cpu=None, triton=None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backends.choose("some_op", "triton", CPU) == "triton"
    assert backends.choose("some_op", None, CPU) == "cpu"


def test_environment_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CISS_FAST_BACKEND", "cuda")
    monkeypatch.setenv("CISS_FAST_BACKEND_SOME_OP", "triton")
    backends.register("some_op", reference=None, cpu=None, triton="no GPU", cuda=None)
    backends.register("other_op", reference=None, triton=None, cuda=None)
    backends.register("without_cuda", reference=None, cpu=None, triton=None)
    with pytest.raises(RuntimeError, match="^some_op: CISS_FAST_BACKEND_SOME_OP 'triton' cannot run here: no GPU$"):
        backends.choose("some_op", None, CUDA)
    assert backends.choose("some_op", "cuda", CUDA) == "cuda"  # the argument wins
    assert backends.choose("other_op", None, CUDA) == "cuda"
    assert backends.choose("without_cuda", None, CUDA) == "triton"  # which has no such backend
    with pytest.raises(RuntimeError, match="^other_op: CISS_FAST_BACKEND 'cuda' needs tensors on cuda, got cpu$"):
        backends.choose("other_op", None, CPU)


def test_environment_names_what_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CISS_FAST_BACKEND", "tpu")
    backends.register("some_op", reference=None, cpu=None)
    with pytest.raises(ValueError, match="^CISS_FAST_BACKEND: expected one of reference, cpu, got 'tpu'$"):
        backends.choose("some_op", None, CPU)
    monkeypatch.setenv("CISS_FAST_BACKEND_OTHER_OP", "tpu")
    backends.register("other_op", reference=None, cpu=None)
    with pytest.raises(
        ValueError, match="^other_op: CISS_FAST_BACKEND_OTHER_OP must be one of reference, cpu, got 'tpu'$"
    ):
        backends.choose("other_op", None, CPU)


def test_choice_inside_a_compiled_function() -> None:
    backends.register("some_op", reference=None, cpu=lambda: None)

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if backends.choose("some_op", None, x.device) == "cpu" else x

    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(2)).tolist() == [1.0, 1.0]


def test_reasons_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    reason_without = triton_runtime.reason_without.__wrapped__  # past its memory
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(triton_runtime.importlib.util, "find_spec", lambda name: None)
    assert reason_without() == "triton is not installed"
    monkeypatch.setattr(triton_runtime.importlib.util, "find_spec", lambda name: object())
    assert reason_without() == "no GPU"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_runtime.interpreting()

    class Triton:
        __version__ = "3.5.1"

    monkeypatch.setattr(triton_runtime.importlib, "import_module", lambda name: Triton)
    assert reason_without() == "triton 3.6 or newer is needed, 3.5.1 is installed"
    Triton.__version__ = "3.10.0+git1"
    assert reason_without() is None


def test_the_package_is_imported_without_triton() -> None:
    code = "import sys, ciss_fast; print('triton' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout == "False\n", finished.stderr
