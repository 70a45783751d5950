"""``ciss_fast::prototypes`` as a PyTorch operator: schema, kernels, fake kernel, autocast. It has no derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import native
from ..device_kernels import implement, with_backend, without_backend
from ..tensors import tensor_arguments
from .checks import check_features, check_memory, check_temperature, result_type

library = torch.library.Library("ciss_fast", "FRAGMENT")
_SCHEMA = (
    "(Tensor feature_prev, Tensor feature_curr, Tensor memory, float temperature) "
    "-> (Tensor prototype_prev, Tensor prototype_curr, Tensor log_sum)"
)
library.define(f"prototypes{with_backend(_SCHEMA)}")


def _empty_results(feature_prev: Tensor, feature_curr: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    classes, _, dimension = memory.shape
    dtype = result_type(feature_prev, feature_curr, memory)
    return (
        memory.new_empty((classes, dimension), dtype=dtype),
        memory.new_empty((classes, dimension), dtype=dtype),
        memory.new_empty(classes, dtype=torch.float64),
    )


def _prototypes_cpu(
    feature_prev: Tensor, feature_curr: Tensor, memory: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    kernel = native.function("prototypes")
    check_memory(memory)
    check_features(feature_prev, feature_curr, memory)
    check_temperature(temperature)
    results = prototype_prev, prototype_curr, log_sum = _empty_results(feature_prev, feature_curr, memory)
    kernel(
        **tensor_arguments("feature_prev", feature_prev),
        **tensor_arguments("feature_curr", feature_curr),
        **tensor_arguments("memory", memory),
        sizes=(feature_prev.shape[0], *memory.shape),
        temperature=temperature,
        double_precision=prototype_prev.dtype == torch.float64,
        prototype_prev=prototype_prev.data_ptr(),
        prototype_curr=prototype_curr.data_ptr(),
        log_sum=log_sum.data_ptr(),
        threads=torch.get_num_threads(),
    )
    return results


def _prototypes_triton(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from .triton_launch import prototypes_triton  # triton need not be installed

    return prototypes_triton(*arguments)


implement(library, "prototypes", cpu=_prototypes_cpu, triton=_prototypes_triton)
torch.library.register_fake(
    "ciss_fast::prototypes",
    without_backend(
        lambda feature_prev, feature_curr, memory, temperature: _empty_results(feature_prev, feature_curr, memory)
    ),
    lib=library,
)
for _key in ("AutocastCPU", "AutocastCUDA"):  # every dtype is taken as it comes
    library.impl("prototypes", torch.library.fallthrough_kernel, _key)
