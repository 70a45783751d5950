"""Arguments that do not fit: one line that names the argument, what was expected and what came."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import ciss_fast
from ciss_fast import backends, native

PARAMS, VECTORS = torch.zeros(2, 10), torch.ones(2, 5)
BACKENDS = ["reference", "cpu"]

CASES = [
    ({"params": [[0.0]]}, TypeError, "params: expected a torch.Tensor, got list"),
    ({"vectors": None}, TypeError, "vectors: expected a torch.Tensor, got NoneType"),
    ({"params": PARAMS.to_sparse()}, TypeError, "params: expected a dense tensor, got layout torch.sparse_coo"),
    ({"params": PARAMS.bfloat16()}, TypeError, "params: expected float32 or float64, got torch.bfloat16"),
    ({"params": PARAMS.long()}, TypeError, "params: expected float32 or float64, got torch.int64"),
    ({"vectors": VECTORS.long()}, TypeError, "vectors: expected float32, bfloat16, float16 or float64, got .*int64"),
    ({"vectors": VECTORS[0]}, ValueError, r"vectors: expected \[K, D\] or \[K, S, D\] .*, got shape \[5\]"),
    ({"vectors": VECTORS[None, None]}, ValueError, r"vectors: expected .*, got shape \[1, 1, 2, 5\]"),
    ({"vectors": VECTORS[:, :0]}, ValueError, r"vectors: expected .* with D >= 1, got shape \[2, 0\]"),
    ({"params": PARAMS[:, :9]}, ValueError, r"params: expected .* = \[2, 10\] .*\[2, 5\]\), got shape \[2, 9\]"),
    ({"params": PARAMS[:1]}, ValueError, r"params: expected .* = \[2, 10\] .*, got shape \[1, 10\]"),
    ({"params": PARAMS[0]}, ValueError, r"params: expected .* = \[2, 10\] .*, got shape \[10\]"),
    ({"vectors": torch.ones(2, 3, 4)}, ValueError, r"params: expected .* = \[2, 6\] .*\[2, 3, 4\]\), got .*\[2, 10\]"),
    ({"params": PARAMS.to("meta")}, ValueError, "params: expected device cpu like vectors, got meta"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("changes", "kind", "message"), CASES, ids=[case[2][:40] for case in CASES])
def test_message(needs_kernel, changes, kind, message, backend) -> None:
    arguments = {"params": PARAMS, "vectors": VECTORS, **changes}
    with pytest.raises(kind, match=f"^{message}") as caught:
        ciss_fast.cayley_rotate(**arguments, backend=backend)
    assert "\n" not in str(caught.value)


# What a caller of the operators below the public function can get wrong.
@pytest.mark.parametrize(("changes", "kind", "message"), [case for case in CASES if "dense" not in case[2]])
def test_message_of_the_operator(needs_kernel, changes, kind, message) -> None:
    arguments = {"params": PARAMS, "vectors": VECTORS, **changes}
    if all(isinstance(one, torch.Tensor) and one.device.type == "cpu" for one in arguments.values()):
        with pytest.raises(kind, match=message):
            torch.ops.ciss_fast.cayley_rotate(*arguments.values(), False)


BACKWARD = {
    "params": PARAMS, "solutions": VECTORS, "factors": torch.empty(0, dtype=torch.uint8),
    "iterations": torch.zeros(2, dtype=torch.int32), "upstream": VECTORS,
}  # fmt: skip
BACKWARD_CASES = [
    ({"solutions": VECTORS.half()}, TypeError, "solutions, iterations: .* got torch.float16, torch.int32"),
    ({"iterations": torch.zeros(2)}, TypeError, "solutions, iterations: .* got torch.float32, torch.float32"),
    ({"solutions": VECTORS[:, :4]}, ValueError, r"solutions, iterations: .*, got \[2, 4\], \[2\]"),
    ({"iterations": torch.zeros(3, dtype=torch.int32)}, ValueError, r"solutions, iterations: .*, got \[2, 5\], \[3\]"),
    ({"upstream": torch.ones(3, 5)}, ValueError, r"params: expected .* = \[3, 10\]"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BACKWARD_CASES)
def test_message_of_the_backward_operator(needs_kernel, changes, kind, message) -> None:
    torch.ops.ciss_fast.cayley_rotate_backward(*BACKWARD.values(), True)
    with pytest.raises(kind, match=message):
        torch.ops.ciss_fast.cayley_rotate_backward(*(BACKWARD | changes).values(), True)


@pytest.mark.parametrize("vectors", [None, 3, 20, 70])
def test_rotations_beyond_the_arithmetic(cayley_inputs, vectors) -> None:
    # Never a wrong answer: R is orthogonal, so a result of another length was one.
    for norm in (1e3, 1e4, 1e5, 1e6, 1e8, 1e12, 1e20, 1e30, 1e36):
        params, x = cayley_inputs(classes=3, dimension=65, vectors=vectors, norm=norm)
        try:
            rotated = ciss_fast.cayley_rotate(params, x, backend="cpu")
        except ValueError as error:
            assert str(error).startswith("params: expected rotations that can be solved within 1e-06, got class ")
            assert "\n" not in str(error) and norm > 1e4
        else:
            assert norm < 1e12
            lengths = x.double().norm(dim=-1)
            torch.testing.assert_close(rotated.double().norm(dim=-1), lengths, rtol=5e-6, atol=0)


def test_the_class_that_cannot_be_solved_is_named(cayley_inputs) -> None:
    params, x = cayley_inputs(classes=4, dimension=33)
    params[2] *= 1e12
    with pytest.raises(ValueError, match=r"^params: expected .* got class 2 with .*norm of S: \d\.\de\+12\)$"):
        ciss_fast.cayley_rotate(params, x, backend="cpu")


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="^cayley_rotate: backend must be one of .*, triton, cuda, got 'gpu'"):
        ciss_fast.cayley_rotate(PARAMS, VECTORS, backend="gpu")


def test_backend_that_cannot_run(monkeypatch) -> None:
    monkeypatch.setitem(backends._ops["cayley_rotate"], "cpu", "it is not there")
    with pytest.raises(RuntimeError, match="^cayley_rotate: backend 'cpu' cannot run here: it is not there$"):
        ciss_fast.cayley_rotate(PARAMS, VECTORS, backend="cpu")
    # Not asked for by name, the definition serves.
    monkeypatch.setattr(native, "library", None)
    assert torch.equal(ciss_fast.cayley_rotate(PARAMS, VECTORS), VECTORS)


def test_kernel_on_another_device(needs_kernel) -> None:
    with pytest.raises(RuntimeError, match="^cayley_rotate: backend 'cpu' needs tensors on cpu, got meta$"):
        ciss_fast.cayley_rotate(PARAMS.to("meta"), VECTORS.to("meta"), backend="cpu")


@pytest.mark.parametrize(
    ("library", "reason"),
    [(None, "not built"), (object(), "the native library has no cayley_rotate: it was built from older sources")],
)
def test_operator_without_the_kernel(monkeypatch, library, reason) -> None:
    monkeypatch.setattr(native, "library", library)
    monkeypatch.setattr(native, "unavailable_reason", None if library else reason)
    with pytest.raises(RuntimeError, match=f"^ciss_fast::cayley_rotate needs the native library: {reason}$"):
        torch.ops.ciss_fast.cayley_rotate(PARAMS, VECTORS, False)


OLDER_LIBRARY = """
import sys, types
sys.modules["ciss_fast._native"] = types.ModuleType("ciss_fast._native")
import torch, ciss_fast
from ciss_fast import backends
assert torch.equal(ciss_fast.cayley_rotate(torch.zeros(2, 10), torch.ones(2, 5)), torch.ones(2, 5))
print(backends.table()["cayley_rotate"]["cpu"])
"""


def test_the_definition_serves_where_the_library_is_older(repository) -> None:
    process = subprocess.run([sys.executable, "-c", OLDER_LIBRARY], cwd=repository, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == "the native library has no cayley_rotate: it was built from older sources"
