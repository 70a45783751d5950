"""Rotations, losses and gradients of the paper's own code, made in double precision, through every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ciss_fast

FILES = ("cayley_small", "cayley_256_init")


@pytest.fixture(scope="session")
def golden(shared_file):
    """Function from a file's name to its arrays as float64 tensors, read once."""
    read: dict[str, dict[str, torch.Tensor]] = {}

    def load(name: str) -> dict[str, torch.Tensor]:
        if name not in read:
            with np.load(shared_file(f"golden/{name}.npz")) as arrays:
                read[name] = {key: torch.from_numpy(np.asarray(arrays[key])).double() for key in arrays}
        return read[name]

    return load


PRECISIONS = [
    pytest.param("cpu", torch.float64, 1e-12, id="cpu-float64"),
    pytest.param("cpu", torch.float32, 1e-5, id="cpu-float32"),
    pytest.param("reference", torch.float64, 1e-12, id="reference-float64"),
    pytest.param("reference", torch.float32, 1e-5, id="reference-float32"),
]


@pytest.mark.parametrize(("backend", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", FILES)
def test_rotation_and_rotated_memory(golden, name, backend, dtype, tolerance) -> None:
    arrays = golden(name)
    params, memory = arrays["params"].to(dtype), arrays["memory"].to(dtype)
    rotated = ciss_fast.cayley_rotate(params, memory, backend=backend).double()
    largest = float(arrays["memory_rotated"].abs().max())
    torch.testing.assert_close(rotated, arrays["memory_rotated"], rtol=0, atol=tolerance * largest)
    classes, dimension = len(params), memory.shape[2]
    columns = torch.eye(dimension, dtype=dtype).expand(classes, dimension, dimension)
    rotation = ciss_fast.cayley_rotate(params, columns, backend=backend).double().transpose(1, 2)
    torch.testing.assert_close(rotation, arrays["rotation"], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("backend", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("name", FILES)
def test_losses_of_the_fit(golden, name, backend, dtype, tolerance) -> None:
    # Prototypes are centred over the classes; the classifier reads them with the current mean added again.
    arrays = golden(name)
    previous, current = arrays["proto_prev"].to(dtype), arrays["proto_curr"].to(dtype)
    mean = current.mean(0)
    params = arrays["params"].to(dtype).requires_grad_()
    rotated = ciss_fast.cayley_rotate(params, previous - previous.mean(0), backend=backend)
    fid = (1 - F.cosine_similarity(rotated, current - mean, dim=1)).mean()
    logits = F.linear(rotated + mean, arrays["cls_weight"].to(dtype), arrays["cls_bias"].to(dtype))
    reg = F.cross_entropy(logits, torch.arange(len(params)))
    total = arrays["lam"] * fid + (1 - arrays["lam"]) * reg
    (gradient,) = torch.autograd.grad(total, params)
    for value, key in ((rotated, "rot_proto_centered"), (fid, "loss_fid"), (reg, "loss_reg"), (total, "loss_total")):
        largest = float(arrays[key].abs().max())
        torch.testing.assert_close(value.detach().double(), arrays[key], rtol=0, atol=tolerance * largest)
    largest = float(arrays["grad_params"].abs().max())
    torch.testing.assert_close(gradient.double(), arrays["grad_params"], rtol=0, atol=10 * tolerance * largest)
