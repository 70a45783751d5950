"""The definition itself, against the Cayley transform written with inverses, and on more than one thread."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import ciss_fast


@pytest.mark.parametrize("norm", [0.05, 3.0, 100.0])
@pytest.mark.parametrize("dimension", [1, 2, 3, 8, 17])
def test_formula(cayley_inputs, cayley_skew_matrices, dimension, norm) -> None:
    inputs = cayley_inputs(classes=2, dimension=dimension, vectors=4, norm=norm, dtype=torch.float64)
    result = ciss_fast.cayley_rotate(*inputs, backend="reference")
    for skew, x, rotated in zip(cayley_skew_matrices(inputs.params, dimension), inputs.vectors, result, strict=True):
        identity = torch.eye(dimension, dtype=torch.float64)
        rotation = (identity - skew) @ torch.linalg.inv(identity + skew)
        torch.testing.assert_close(rotated, x @ rotation.T, rtol=0, atol=1e-11)


def test_a_rotation_of_the_plane() -> None:
    # U = [[0, u], [0, 0]], S = [[0, u/2], [-u/2, 0]]: by twice the arc tangent of u/2, clockwise.
    u = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    rotated = ciss_fast.cayley_rotate(u, torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))
    angle = 2 * torch.atan(u[:, 0] / 2)
    torch.testing.assert_close(rotated, torch.stack([angle.cos(), angle.sin()], dim=1))


def test_order_of_the_parameters(cayley_skew_matrices) -> None:
    params = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.equal(
        2 * cayley_skew_matrices(params, 3)[0], torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.0, 3.0], [-2.0, -3.0, 0.0]])
    )
    # Small parameters: R x = x - 2 S x.
    x = torch.tensor([[1.0, 10.0, 100.0]], dtype=torch.float64)
    moved = ciss_fast.cayley_rotate(1e-9 * params.double(), x) - x
    torch.testing.assert_close(moved, -2e-9 * x @ cayley_skew_matrices(params.double(), 3)[0].T, rtol=1e-5, atol=0)


def test_single_precision_arguments_are_computed_in_double_precision(cayley_inputs) -> None:
    inputs = cayley_inputs(dimension=64, norm=100.0)
    exact = ciss_fast.cayley_rotate(inputs.params.double(), inputs.vectors.double(), backend="reference")
    assert torch.equal(ciss_fast.cayley_rotate(*inputs, backend="reference"), exact.float())


TWO_THREADS = """
import sys
import torch, ciss_fast
torch.manual_seed(0)
params, vectors = 0.1 * torch.randn(4, 256 * 255 // 2), torch.randn(4, 256)
options = {"backend": sys.argv[1]} if len(sys.argv) > 1 else {}
results = []
for threads in (1, 2):
    torch.set_num_threads(threads)
    leaf = params.clone().requires_grad_()
    rotated = ciss_fast.cayley_rotate(leaf, vectors, **options)
    (gradient,) = torch.autograd.grad(rotated.square().sum() + rotated[:, 0].sum(), leaf)
    results.append((rotated.detach(), gradient))
for one, two in zip(*results):
    assert (one - two).abs().max() <= 1e-5 * one.abs().max(), (one - two).abs().max()
error = (results[0][0].norm(dim=1) / vectors.norm(dim=1) - 1).abs().max()
assert error <= 1e-5, error
print("the same")
"""


def test_two_threads(repository) -> None:
    # torch 2.13's linalg.solve and inv on batches of such matrices hang, abort or give wrong results after
    # set_num_threads(2) on the CPU. In a process of its own: what fails there may take the process with it.
    finished = subprocess.run(
        [sys.executable, "-c", TWO_THREADS, "reference"],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout == "the same\n"
