"""Arguments that do not fit: one line that names the argument, what was expected and what came."""

from __future__ import annotations

import pytest
import torch

import ciss_fast
from ciss_fast import backends

PARAMS, VECTORS = torch.zeros(2, 10), torch.ones(2, 5)
BACKENDS = sorted(backends.table()["cayley_rotate"])

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
    ({"params": PARAMS.to("meta")}, ValueError, "params: expected device cpu like the vectors, got meta"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("changes", "kind", "message"), CASES, ids=[case[2][:40] for case in CASES])
def test_message(changes, kind, message, backend) -> None:
    arguments = {"params": PARAMS, "vectors": VECTORS, **changes}
    with pytest.raises(kind, match=f"^{message}") as caught:
        ciss_fast.cayley_rotate(**arguments, backend=backend)
    assert "\n" not in str(caught.value)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="^cayley_rotate: backend must be one of reference.*, got 'cuda'"):
        ciss_fast.cayley_rotate(PARAMS, VECTORS, backend="cuda")
