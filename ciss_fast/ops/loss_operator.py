"""Losses as PyTorch operators: what their registration with ``torch.library`` shares.

The forward pass of a loss makes the gradients of its total as well; the backward pass multiplies them by the
incoming gradient. A loss op therefore returns ``(total, ..., gradient, ...)``: the total first, one gradient per
differentiable input last, between them whatever else it reports. An empty tensor stands for a gradient that was not
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import device_kernels

library = torch.library.Library("ciss_fast", "FRAGMENT")
library.define('scale_gradient(Tensor gradient, Tensor upstream, Tensor logits, str loss="loss") -> Tensor')


def result_type(*inputs: Tensor) -> torch.dtype:
    """Type of totals and gradients: float64 if an input has it, else float32."""
    return torch.float64 if any(x.dtype == torch.float64 for x in inputs) else torch.float32


def empty_gradient(logits: Tensor, needed: bool, dtype: torch.dtype | None = None) -> Tensor:
    """Room for the gradient, laid out like ``logits``, of type ``dtype`` (default: `result_type`)."""
    dtype = dtype or result_type(logits)
    return torch.empty_like(logits, dtype=dtype) if needed else logits.new_empty(0, dtype=dtype)


def gradient_arguments(name: str, gradient: Tensor) -> dict[str, object]:
    """The room that `empty_gradient` made, as the native library takes it; address 0 where none is needed."""
    if gradient.numel() == 0:
        return {name: 0, f"{name}_strides": ()}
    return {name: gradient.data_ptr(), f"{name}_strides": gradient.stride()}


def register_loss(
    name: str,
    schema: str,
    *,
    cpu: Callable[..., tuple[Tensor, ...]],
    fake: Callable[..., tuple[Tensor, ...]],
    differentiable: Sequence[int] = (0,),
    **gpu: Callable[..., tuple[Tensor, ...]],
) -> None:
    """Define ``ciss_fast::name`` with its kernels, fake kernel, autograd and autocast.

    Args:
        name: the op's name.
        schema: its arguments and results, as ``torch.library`` writes them; see this module's docstring for the
            order of the results. The operator takes one more argument, ``backend``: see `device_kernels`.
        cpu, fake: the kernels.
        differentiable: positions of the arguments that get a gradient, in the order of their gradients.
        **gpu: kernels for CUDA tensors by the name of their backend.
    """
    library.define(f"{name}{device_kernels.with_backend(schema)}")
    device_kernels.implement(library, name, cpu=cpu, **gpu)
    torch.library.register_fake(f"ciss_fast::{name}", device_kernels.without_backend(fake), lib=library)

    kernel = getattr(torch.ops.ciss_fast, name)

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, keywords, *arguments):
            with torch._C._AutoDispatchBelowAutograd():
                results = kernel(*arguments, **keywords)
            ctx.mark_non_differentiable(*results[1:])
            ctx.set_materialize_grads(False)
            ctx.arguments = len(arguments)
            gradients = results[len(results) - len(differentiable) :]
            ctx.save_for_backward(*gradients, *(arguments[position] for position in differentiable))
            return results

        @staticmethod
        def backward(ctx, upstream: Tensor | None, *unused: Tensor | None):
            results: list[Tensor | None] = [None] * (1 + ctx.arguments)
            if upstream is None:
                return tuple(results)
            saved = ctx.saved_tensors
            for i, position in enumerate(differentiable):
                gradient, logits = saved[i], saved[len(differentiable) + i]
                if not ctx.needs_input_grad[1 + position]:
                    continue
                if gradient.numel() == 0 and logits.numel() > 0:
                    raise RuntimeError(f"{name}: the gradient was not asked for when the loss was computed")
                results[1 + position] = _scaled(gradient, upstream, logits, name)
            return tuple(results)

    # What torch.library.register_autograd makes goes through the schema of every call in time quadratic in its length:
    # 50 us for thirteen arguments.
    def with_autograd(*arguments: Any, **keywords: Any) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
            return Loss.apply(keywords, *arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return kernel(*arguments, **keywords)

    library.impl(name, with_autograd, "Autograd")
    _take_every_type_under_autocast(name)


def _scaled(gradient: Tensor, upstream: Tensor, logits: Tensor, loss: str) -> Tensor:
    plain = type(upstream) is Tensor and type(gradient) is Tensor and not torch.is_grad_enabled()
    if plain and upstream.device.type == "cpu" and upstream.item() == 1:
        return gradient.to(logits.dtype)  # what total.backward() sends: spares a pass or two over the gradient
    return torch.ops.ciss_fast.scale_gradient(gradient, upstream, logits, loss)


def _take_every_type_under_autocast(name: str) -> None:
    """Under autocast a loss takes every dtype as it comes and computes in float32: no casts, no copies."""
    for key in ("AutocastCPU", "AutocastCUDA"):
        library.impl(name, torch.library.fallthrough_kernel, key)


def _scale_gradient(gradient: Tensor, upstream: Tensor, logits: Tensor, loss: str = "loss") -> Tensor:
    return (gradient * upstream).to(logits.dtype)


def _scale_gradient_fake(gradient: Tensor, upstream: Tensor, logits: Tensor, loss: str = "loss") -> Tensor:
    return torch.empty_like(gradient, dtype=logits.dtype)


def _remember_the_loss(ctx, inputs, output) -> None:
    ctx.loss = inputs[3]


def _no_double_backward(ctx, upstream: Tensor):
    raise RuntimeError(f"{ctx.loss}: expected a single backward pass, got a second derivative (not supported)")


library.impl("scale_gradient", _scale_gradient, "CompositeExplicitAutograd")
torch.library.register_fake("ciss_fast::scale_gradient", _scale_gradient_fake, lib=library)
torch.library.register_autograd(
    "ciss_fast::scale_gradient", _no_double_backward, setup_context=_remember_the_loss, lib=library
)
_take_every_type_under_autocast("scale_gradient")
