"""Launches of the Triton kernels of `prototypes`."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ...triton_runtime import OPTIONS, device_of, interpreting
from ..triton_sizes import power_of_two_from, two_floats
from .checks import check_features, check_memory, check_temperature, result_type
from .triton_kernels import lengths_kernel, scores_kernel, softmax_kernel, weighted_sums_kernel

# Of the products that make the scores: two TF32 numbers stand for a float32 one, three of their products for its
# product. Half-precision inputs of one type are multiplied as they are, which is exact.
SCORES_PRECISION = "tf32x3"
SUMS_PRECISION = "ieee"
POSITIONS_OF_CHUNK = 512
_HALVES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def prototypes_triton(
    feature_prev: Tensor, feature_curr: Tensor, memory: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The kernel of ``ciss_fast::prototypes``."""
    check_memory(memory)
    check_features(feature_prev, feature_curr, memory)
    check_temperature(temperature)
    dtype = result_type(feature_prev, feature_curr, memory)
    real = tl.float64 if dtype == torch.float64 else tl.float32
    count, dimension = feature_prev.shape
    classes = memory.shape[0]
    if classes == 0:
        empty = memory.new_empty((0, dimension), dtype=dtype)
        return empty, empty.clone(), memory.new_empty(0, dtype=torch.float64)
    with device_of(memory):
        scores = _scores(feature_prev, memory, dtype, real)
        highest, weight_sums = (memory.new_empty(classes, dtype=torch.float64) for _ in range(2))
        temperatures = two_floats(temperature)
        softmax_kernel[(classes,)](
            scores, highest, weight_sums, count, *temperatures, BLOCK=1024 if count > 512 else 128, REAL=real, **OPTIONS
        )
        sums = _weighted_sums(feature_prev, feature_curr, scores, highest, temperatures, dtype, real)
    prototypes = sums.sum(dim=0, dtype=torch.float64) / weight_sums[:, None]
    prototype_prev, prototype_curr = prototypes.to(dtype).unbind()
    return prototype_prev.clone(), prototype_curr.clone(), temperature * highest + weight_sums.log()


def _scores(feature_prev: Tensor, memory: Tensor, dtype: torch.dtype, real: tl.dtype) -> Tensor:
    """v_c(p) [K, P], float64."""
    count, dimension = feature_prev.shape
    classes, per_class, _ = memory.shape
    halves = feature_prev.dtype == memory.dtype and memory.dtype in _HALVES
    scaled = feature_prev.new_empty((count, dimension), dtype=memory.dtype if halves else dtype)
    position_inverse = feature_prev.new_empty(count, dtype=torch.float64)
    memory_inverse = memory.new_empty((classes, per_class), dtype=dtype)
    shape = {"ROWS": 8, "COLUMNS": min(256, power_of_two_from(dimension)), "REAL": real, **OPTIONS}
    lengths_kernel[(-(-count // 8),)](
        feature_prev, 0, *feature_prev.stride(), position_inverse, scaled, count, count, dimension, SCALE=True, **shape
    )
    vectors = classes * per_class
    lengths_kernel[(-(-vectors // 8),)](
        memory, *memory.stride(), memory_inverse, memory_inverse, per_class, vectors, dimension, SCALE=False, **shape
    )
    scores = memory.new_empty((classes, count), dtype=torch.float64)
    most_positions, most_vectors = (64, 64) if dtype == torch.float64 else (128, 128 if halves else 64)
    positions = max(16, min(most_positions, power_of_two_from(count)))
    blocks = -(-count // positions)
    scores_kernel[(classes * blocks,)](
        *(scaled, memory, *memory.stride(), position_inverse, memory_inverse, scores),
        *(count, per_class, dimension, blocks),
        POSITIONS=positions,
        VECTORS=max(16, min(most_vectors, power_of_two_from(per_class))),
        DEPTH=32,
        PRODUCT=_HALVES[memory.dtype] if halves and not interpreting() else real,  # the interpreter knows no bfloat16
        PRECISION=SCORES_PRECISION if scaled.dtype == torch.float32 else "ieee",
        REAL=real,
        num_warps=8,
        num_stages=3,
        **OPTIONS,
    )
    return scores


def _weighted_sums(
    feature_prev: Tensor,
    feature_curr: Tensor,
    scores: Tensor,
    highest: Tensor,
    temperatures: tuple[float, float],
    dtype: torch.dtype,
    real: tl.dtype,
) -> Tensor:
    """Sums of both features [chunks, 2, K, D]. Chunks are cut by sizes alone and added in their order."""
    classes, count = scores.shape
    dimension = feature_prev.shape[1]
    chunks = -(-count // POSITIONS_OF_CHUNK)
    sums = scores.new_empty((chunks, 2, classes, dimension), dtype=dtype)
    shape = {
        "CLASSES": max(16, min(32, power_of_two_from(classes))),
        "ELEMENTS": max(16, min(64, power_of_two_from(dimension))),
        "POSITIONS": 32,
    }
    class_blocks, element_blocks = -(-classes // shape["CLASSES"]), -(-dimension // shape["ELEMENTS"])
    weighted_sums_kernel[(chunks * 2 * class_blocks * element_blocks,)](
        *(scores, highest, feature_prev, *feature_prev.stride(), feature_curr, *feature_curr.stride(), sums),
        *(count, classes, dimension, *temperatures, POSITIONS_OF_CHUNK, class_blocks, element_blocks),
        **shape,
        PRECISION=SUMS_PRECISION,
        REAL=real,
        **OPTIONS,
    )
    return sums
