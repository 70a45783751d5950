"""Cases of ``cayley_rotate``: an iteration of the fit of rotations, and the rotation of a feature memory (ALIFE-M).

Fitting: one vector a class, forward and backward through FID + REG, gradient on the parameters. Applying: 1000 vectors
a class, forward only. "eager" does what the paper's code does, a dense inverse for each class. "loop of solves" and
"batched solve" leave the inverse out. The batched one runs on a single thread: torch 2.13's linalg.solve on batches
of such matrices hangs or gives wrong results on several (CPU).

Floors. Traffic: parameters read in the forward and in the backward pass and their gradient written; applying: memory
read and written. Operations: the multiply-adds of the products with S that the iterative solutions take, of the
elimination where a class is solved directly, and of the product with the memory. They come at the rate of torch's
matrix product, which products of a matrix and a vector cannot reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import ciss_fast

from .case import ON_CPU, Target, Workload
from .machine import torch_threads

Result = tuple[Tensor, Tensor]
Rotate = Callable[[Tensor, Tensor], Tensor]
NEW_CLASSES = 5
FIDELITY_WEIGHT = 0.99


def our_rotation(params: Tensor, vectors: Tensor, **options: Any) -> Tensor:
    """As a user asks for it."""
    return ciss_fast.cayley_rotate(params, vectors, **options)


def our_fit(
    params: Tensor, prototypes: tuple[Tensor, Tensor], classifier: tuple[Tensor, Tensor], **options: str
) -> Result:
    """Loss and gradient on the parameters, as a user asks for them."""
    loss, _ = ciss_fast.rotation_loss(params, *prototypes, *classifier, FIDELITY_WEIGHT, **options)
    (gradient,) = torch.autograd.grad(loss, params)
    return loss.detach(), gradient


def skew_matrix(upper: Tensor, dimension: int) -> Tensor:
    """S [..., D, D] of packed parameters [..., D (D - 1) / 2]."""
    rows, columns = torch.triu_indices(dimension, dimension, 1, device=upper.device)
    matrix = upper.new_zeros(*upper.shape[:-1], dimension, dimension)
    if upper.dim() == 1:
        matrix = matrix.index_put((rows, columns), upper)
    else:
        matrix = matrix.index_put((torch.arange(len(upper), device=upper.device)[:, None], rows, columns), upper)
    return (matrix - matrix.mT) / 2


def spectral_norm(upper: Tensor, dimension: int) -> float:
    """||S||_2 of one class."""
    return float(torch.linalg.matrix_norm(skew_matrix(upper, dimension), 2))


def loop_of_inverses(params: Tensor, vectors: Tensor) -> Tensor:
    """A dense rotation for every class."""
    identity = torch.eye(vectors.shape[-1], device=vectors.device)
    rotated = []
    for upper, x in zip(params, vectors, strict=True):
        skew = skew_matrix(upper, x.shape[-1])
        rotated.append(x @ ((identity - skew) @ torch.linalg.inv(identity + skew)).T)
    return torch.stack(rotated)


def loop_of_solves(params: Tensor, vectors: Tensor) -> Tensor:
    """(I + S) y = x for every class; R x = 2 y - x."""
    identity = torch.eye(vectors.shape[-1], device=vectors.device)
    rotated = []
    for upper, x in zip(params, vectors, strict=True):
        y = torch.linalg.solve(identity + skew_matrix(upper, x.shape[-1]), x.reshape(-1, x.shape[-1]).T)
        rotated.append(2 * y.T.reshape(x.shape) - x)
    return torch.stack(rotated)


def batched_solve(params: Tensor, vectors: Tensor) -> Tensor:
    """The same for all classes at once."""
    matrices = torch.eye(vectors.shape[-1], device=vectors.device) + skew_matrix(params, vectors.shape[-1])
    y = torch.linalg.solve(matrices, vectors.reshape(len(vectors), -1, vectors.shape[-1]).mT)
    return 2 * y.mT.reshape(vectors.shape) - vectors


def on_one_thread(function: Callable[[], Result]) -> Result:
    """What ``function`` returns, forward and backward pass on a single thread."""
    with torch_threads(1):
        return function()


@dataclass(frozen=True)
class RotationCase:
    """One setting. ``norm``: spectral norm of every class's S. ``spectrum``: "start", uniform parameters, as published
    (``norm`` is not used); "fit", what 100 iterations of a fit leave, a few large singular values and many small ones;
    "normal", normal parameters, whose singular values fill the range."""

    name: str
    classes: int
    spectrum: str = "start"
    norm: float = 0.0
    vectors: int | None = None
    dimension: int = 256
    compared_with: str | None = None

    @property
    def description(self) -> str:
        work = "fitting" if self.vectors is None else f"applying, {self.vectors} vectors a class"
        spectrum = {"start": "start of a fit", "fit": f"as in a fit, ||S|| = {self.norm:g}"}.get(
            self.spectrum, f"normal, ||S|| = {self.norm:g}"
        )
        return f"{self.classes} classes, dimension {self.dimension}, {work}, {spectrum}"

    def shrunk(self) -> RotationCase:
        """At most 8 classes, a quarter of the dimension, a tenth of the vectors."""
        vectors = None if self.vectors is None else -(-self.vectors // 10)
        return replace(self, classes=min(self.classes, 8), dimension=-(-self.dimension // 4), vectors=vectors)

    def tiny(self) -> RotationCase:
        """Two classes of 16 dimensions."""
        return replace(self, classes=2, dimension=16, vectors=None if self.vectors is None else 20)

    def prototypes(self, generator: torch.Generator, noise: float = 0.3) -> tuple[Tensor, Tensor]:
        """Of one iteration, in the previous and the current space: fixed ones behind ReLU with noise of the batch."""
        fixed = torch.Generator().manual_seed(1)
        before = torch.randn(self.classes, self.dimension, generator=fixed).relu_()
        change = torch.randn(self.dimension, self.dimension, generator=fixed) / self.dimension**0.5
        after = (before + 0.5 * before @ change).relu_()
        return tuple(one + noise * torch.randn(one.shape, generator=generator).abs_() for one in (before, after))

    def parameters(self, generator: torch.Generator, classifier: tuple[Tensor, Tensor]) -> Tensor:
        """The parameters [K, D (D - 1) / 2] of the case."""
        count = self.dimension * (self.dimension - 1) // 2
        if self.spectrum == "normal":
            params = torch.randn(self.classes, count, generator=generator)
        else:
            params = (2 * torch.rand(self.classes, count, generator=generator) - 1) / count**0.5
        if self.spectrum == "start":
            return params
        if self.spectrum == "fit":
            params.requires_grad_()
            optimiser = torch.optim.Adam([params], lr=1e-2, weight_decay=1e-4, fused=True)
            for _ in range(100):
                optimiser.zero_grad()
                fit_loss(our_rotation, params, self.prototypes(generator), classifier).backward()
                optimiser.step()
        params = params.detach()
        return params * torch.tensor([[self.norm / spectral_norm(one, self.dimension)] for one in params])

    def workload(self, target: Target = ON_CPU) -> Workload:
        generator = torch.Generator().manual_seed(0)
        classifier = (
            torch.randn(self.classes + NEW_CLASSES, self.dimension, generator=generator) / self.dimension**0.5,
            torch.zeros(self.classes + NEW_CLASSES),
        )
        params = self.parameters(generator, classifier).to(target.device)
        classifier = tuple(one.to(target.device) for one in classifier)
        rotate = partial(our_rotation, **target.options)
        if self.vectors is None:
            prototypes = tuple(one.to(target.device) for one in self.prototypes(generator))
            leaf = params.requires_grad_()
            arguments = {"params": leaf, "prototypes": prototypes, "classifier": classifier}
            run = partial(forward_backward, **arguments)
            ours = {
                "ours": partial(our_fit, *arguments.values(), **target.options),
                "ours, term by term": partial(run, rotate),
            }
            expected = partial(
                forward_backward,
                partial(ciss_fast.cayley_rotate, backend="reference"),
                leaf.detach().double().requires_grad_(),
                tuple(one.double() for one in prototypes),
                tuple(one.double() for one in classifier),
            )
            vectors, traffic = prototypes[0], 3 * params.nbytes
        else:
            vectors = torch.randn(self.classes, self.vectors, self.dimension, generator=generator).relu_()
            vectors = vectors.to(target.device)
            run = partial(apply, params=params, vectors=vectors)
            ours = {"ours": partial(run, rotate)}
            expected = partial(
                apply, partial(ciss_fast.cayley_rotate, backend="reference"), params.double(), vectors.double()
            )
            traffic = params.nbytes + 2 * vectors.nbytes
        _, iterations = rotate(params.detach(), vectors, return_iterations=True)
        batched = partial(run, batched_solve)
        return Workload(
            candidates={
                "eager": partial(run, loop_of_inverses),
                **ours,
                "loop of solves": partial(run, loop_of_solves),
                **(
                    {"batched solve": batched}
                    if target.on_gpu
                    else {"batched solve, one thread": partial(on_one_thread, batched)}
                ),
            },
            compiled=None,
            expected=expected,
            errors=relative_errors,
            allowed={"value": 2e-5, "gradient": 2e-4},  # float32 inverses of ||S|| = 20 come close to this
            pixels=vectors.numel() // self.dimension,
            traffic_bytes=traffic,
            multiply_adds=self.multiply_adds(iterations),
            details={
                "pixels": vectors.numel() // self.dimension,
                "products_per_class": float(iterations.clamp(min=0).double().mean()),
                "classes_solved_directly": int((iterations < 0).sum()),
            },
        )

    def multiply_adds(self, iterations: Tensor) -> int:
        """See the module. Both passes of a fit take about the same number of products."""
        direct = int((iterations < 0).sum())
        elimination = direct * self.dimension**3 // 3
        if self.vectors is not None:  # the elimination, solutions for the identity's rows, the product
            return direct * self.dimension**2 * (self.dimension + min(self.vectors, self.dimension) + self.vectors)
        return 2 * (elimination + int(iterations.clamp(min=0).sum()) * self.dimension * (self.dimension - 1))


def fit_loss(
    rotate: Rotate, params: Tensor, prototypes: tuple[Tensor, Tensor], classifier: tuple[Tensor, Tensor]
) -> Tensor:
    """0.99 FID + 0.01 REG of prototypes in the previous and the current feature space."""
    previous, current = prototypes
    mean = current.mean(dim=0)
    rotated = rotate(params, previous - previous.mean(dim=0))
    fidelity = (1 - F.cosine_similarity(rotated, current - mean, dim=1)).mean()
    own_class = torch.arange(len(rotated), device=rotated.device)
    regulariser = F.cross_entropy(F.linear(rotated + mean, *classifier), own_class)
    return FIDELITY_WEIGHT * fidelity + (1 - FIDELITY_WEIGHT) * regulariser


def forward_backward(
    rotate: Rotate, params: Tensor, prototypes: tuple[Tensor, Tensor], classifier: tuple[Tensor, Tensor]
) -> Result:
    """Loss and gradient on the parameters."""
    loss = fit_loss(rotate, params, prototypes, classifier)
    (gradient,) = torch.autograd.grad(loss, params)
    return loss.detach(), gradient


def apply(rotate: Rotate, params: Tensor, vectors: Tensor) -> Result:
    """Rotated vectors; there is no gradient."""
    with torch.no_grad():
        return rotate(params, vectors), vectors.new_zeros(1)


def relative_errors(result: Result, expected: Result) -> dict[str, float]:
    """Of the value's and the gradient's entries, relative to the largest."""
    tiny = torch.finfo(torch.float64).tiny
    return {
        name: float((value.double() - exact).abs().max() / exact.abs().max().clamp(min=tiny))
        for name, value, exact in zip(("value", "gradient"), result, expected, strict=True)
    }


def _cases() -> list[RotationCase]:
    cases = []
    for classes in (16, 101, 141):
        first = RotationCase(f"start-{classes}", classes)
        cases.append(first)
        for spectrum, norm in (("fit", 3), ("fit", 5), ("normal", 3), ("normal", 5), ("normal", 20)):
            name = f"{spectrum}-{norm}-{classes}"
            cases.append(replace(first, name=name, spectrum=spectrum, norm=norm, compared_with=first.name))
    for classes in (16, 101):
        cases.append(RotationCase(f"apply-{classes}", classes, "fit", 3, vectors=1000))
    return cases


CASES = tuple(_cases())
