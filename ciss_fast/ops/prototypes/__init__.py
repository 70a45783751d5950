"""Class prototypes in two feature spaces from a memory of features (ALIFE-M), without the matrix of scores."""

from __future__ import annotations

from torch import Tensor

from ... import backends, native, triton_runtime
from .accumulator import PrototypeAccumulator
from .compute import compute

__all__ = ["PrototypeAccumulator", "prototypes"]

backends.register(
    "prototypes",
    reference=None,
    cpu=native.reason_without("prototypes"),
    triton=triton_runtime.reason_without,
)


def prototypes(
    feature_prev: Tensor,
    feature_curr: Tensor,
    memory: Tensor,
    temperature: float = 10.0,
    *,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Prototype of each class in the previous and in the current feature space (ALIFE-M, stage 2).

    Of the same positions of the same images: where the previous features f' resemble those a class has in memory,
    both feature spaces are averaged. With m_c(s) the memory's features of class c,

        v_c(p) = sum_s ReLU(cos(f'(p), m_c(s))),   sigma_c = softmax over p of temperature v_c(p),
        r'_c = sum_p sigma_c(p) f'(p),   r_c = sum_p sigma_c(p) f(p).

    Nothing is centred: ALIFE-M subtracts the mean over the classes afterwards. The scores are never written: the CPU
    kernel needs workspace for a tile of positions.

    Args:
        feature_prev: [P, D] features f' of the previous extractor at P positions; of maps [B, D, h, w], pass
            ``maps.permute(0, 2, 3, 1).flatten(0, 2)``, a view where the maps are channels-last. float32, bfloat16,
            float16 or float64, any strides.
        feature_curr: [P, D] features f of the current extractor at the same positions.
        memory: [K, S, D] features of K classes, from the previous extractor. The three may differ in type.
        temperature: factor on the scores before the softmax, > 0.
        backend: "cpu" (compiled kernel), "triton" (GPUs) or "reference"; default: the kernel that runs on the
            memory's device.

    Returns:
        r' and r, [K, D] each, float32 (float64 where an input is float64). They carry no gradient: inputs are
        detached. The cosine with a vector of zeros is 0. A NaN or an infinity in ``feature_prev`` makes all classes
        NaN, one in the memory its class; one in ``feature_curr`` leaves its column of r without finite values.

    Raises:
        TypeError: an argument of another kind or a dtype that is not supported.
        ValueError: shapes, devices or a temperature that do not fit; the message names the argument, what was
            expected and what came.
        RuntimeError: ``backend`` names one that cannot run here.

    Source: Oh, Baek, Ham, ALIFE: Adaptive Logit Regularizer and Feature Replay for Incremental Semantic Segmentation,
    NeurIPS 2022.
    """
    prototype_prev, prototype_curr, _ = compute(feature_prev, feature_curr, memory, temperature, backend)
    return prototype_prev, prototype_curr
