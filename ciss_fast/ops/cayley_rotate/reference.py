"""The definition of `cayley_rotate`, in plain PyTorch, written to be read.

Every other implementation is compared with this one. Source: ALIFE (Oh, Baek, Ham, NeurIPS 2022), feature replay
with category-specific rotations; the Cayley transform as their code writes it, S = (U - U^T) / 2 (the poster has
U - U^T, which is the same rotation for half the parameters).
"""

from __future__ import annotations

import torch
from torch import Tensor


def cayley_rotate_reference(params: Tensor, vectors: Tensor) -> Tensor:
    """R_c x for every class c and vector x of it, R = (I - S)(I + S)^-1; see `ciss_fast.cayley_rotate`.

    Classes are solved one by one: torch.linalg.solve and inv on batches were found wrong on the CPU for two threads
    (torch 2.13). Arithmetic is float64: at ||S|| = 100 single precision would leave R orthogonal to 1e-4 only.
    """
    rotated = [rotate(upper, x) for upper, x in zip(params.double(), vectors.double(), strict=True)]
    return (torch.stack(rotated) if rotated else vectors).to(vectors.dtype)


def skew_matrix(upper: Tensor, dimension: int) -> Tensor:
    """S = (U - U^T) / 2 [D, D] from the entries [D (D - 1) / 2] of U above the diagonal, row by row."""
    rows, columns = torch.triu_indices(dimension, dimension, offset=1, device=upper.device)
    matrix = upper.new_zeros(dimension, dimension).index_put((rows, columns), upper)
    return (matrix - matrix.T) / 2


def rotate(upper: Tensor, x: Tensor) -> Tensor:
    """R x for one vector [D] or the rows of [S, D], without R: with (I + S) y = x it is 2 y - x."""
    dimension = x.shape[-1]
    matrix = torch.eye(dimension, dtype=x.dtype, device=x.device) + skew_matrix(upper, dimension)
    # I + S is never singular (its eigenvalues are 1 +- i sigma): no error check.
    y, _ = torch.linalg.solve_ex(matrix, x.reshape(-1, dimension).T)
    poison = (0 * upper).sum() + (0 * x).sum(dim=-1, keepdim=True)  # NaN where something is not finite
    return 2 * y.T.reshape(x.shape) - x + poison
