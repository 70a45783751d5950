"""``ciss_fast::reasoning_loss`` as a PyTorch operator: schema, CPU kernel, fake kernel (see `..loss_operator`).

The matrix products are torch's, what is done per score is the native library's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ... import native
from ..loss_operator import empty_gradient, register_loss, result_type
from .options import TERMS, ReasoningLossOptions, check_options, check_student_and_teacher
from .scores import negative_part, positive_part
from .tiles import arrangement, tiles

_SCHEMA = (
    "(Tensor feature, Tensor weight, Tensor feature_old, Tensor weight_old, float[] weights, "
    "bool need_feature_gradient, bool need_weight_gradient) "
    "-> (Tensor total, Tensor values, Tensor feature_gradient, Tensor weight_gradient)"
)


def _parts(weight: Tensor, active: list[str], dtype: torch.dtype) -> Tensor:
    """The parts of the classifiers' weights that the terms ask for, one below the other: [terms * C, D]."""
    weight = weight.detach().to(dtype)
    parts = {"pos": positive_part, "neg": negative_part}
    return torch.cat([parts[name](weight) for name in active])


def _gradient_of_weight(weight: Tensor, gradients: Tensor, active: list[str]) -> Tensor:
    """From the gradients on the parts [terms * C, D] to that on the weight [C, D]; see `positive_part`."""
    derivative = (weight.detach().to(gradients.dtype).sign() + 1) / 2  # of the positive part: 0, 1/2 or 1
    if active == ["pos"]:
        return derivative * gradients
    if active == ["neg"]:
        return (1 - derivative) * gradients
    positive, negative = gradients.chunk(2)
    return torch.lerp(negative, positive, derivative)


def _reasoning_loss_cpu(
    feature: Tensor,
    weight: Tensor,
    feature_old: Tensor,
    weight_old: Tensor,
    weights: list[float],
    need_feature_gradient: bool,
    need_weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernel = native.function("reasoning_loss")
    # The operator can be called past `ciss_fast.reasoning_loss`: what the kernel would take on trust is checked here.
    check_student_and_teacher(feature, weight, feature_old, weight_old)
    if len(weights) != len(TERMS):
        raise ValueError(f"weights: expected {len(TERMS)} values, got {len(weights)}")
    options = ReasoningLossOptions(dict(zip(TERMS, weights, strict=True)))
    check_options(options)
    active = list(options.active_weights())
    dtype = result_type(feature)
    pixels = feature.shape[0] * feature.shape[2] * feature.shape[3]
    parts, parts_old = _parts(weight, active, dtype), _parts(weight_old, active, dtype)
    feature_gradient = empty_gradient(feature, need_feature_gradient)
    part_gradients = torch.zeros_like(parts) if need_weight_gradient else None
    sums = _run(
        *(feature.detach(), parts, feature_old.detach(), parts_old),
        *([options.weights[name] / max(pixels, 1) for name in active], len(weight)),
        *(feature_gradient if need_feature_gradient else None, part_gradients, kernel),
    )
    if part_gradients is None:
        weight_gradient = empty_gradient(weight, False, dtype)
    else:
        weight_gradient = _gradient_of_weight(weight, part_gradients, active)
    means = {name: value / max(pixels, 1) for name, value in zip(active, sums, strict=True)}
    values = [means.get(name, 0.0) for name in TERMS]
    total = sum(options.weights[name] * value for name, value in means.items())
    if total != total:  # a loss scaler looks for NaN in the gradients: where a score is not finite all of them are
        feature_gradient.fill_(float("nan"))
        weight_gradient.fill_(float("nan"))
    return torch.tensor(total, dtype=dtype), torch.tensor(values, dtype=dtype), feature_gradient, weight_gradient


def _run(
    feature: Tensor,
    parts: Tensor,
    feature_old: Tensor,
    parts_old: Tensor,
    coefficients: list[float],
    classes: int,
    feature_gradient: Tensor | None,
    part_gradients: Tensor | None,
    kernel: Callable[..., list[float]],
) -> list[float]:
    """The sum of every term over all pixels, tile by tile.

    ``coefficients`` are the factors of the terms' gradients. Writes ``feature_gradient`` and adds to
    ``part_gradients``, the gradients on ``parts``, where they are asked for.
    """
    dtype = parts.dtype
    maps, maps_old = feature.flatten(2), feature_old.flatten(2)  # [B, D, h * w]; views for all but rare layouts
    gradient_maps = None if feature_gradient is None else feature_gradient.flatten(2)
    pixel = arrangement(maps)
    all_tiles = tiles(maps, len(parts), converted=feature.dtype != dtype or feature_old.dtype != dtype)
    most_scores = len(parts) * max((tile.size for tile in all_tiles), default=0)
    room, room_old = parts.new_empty(most_scores), parts.new_empty(most_scores)
    sums = [0.0] * len(coefficients)
    for tile in all_tiles:
        features = pixel.of(maps, tile).to(dtype)
        scores = pixel.scores(features, parts, room)
        scores_old = pixel.scores(pixel.of(maps_old, tile).to(dtype), parts_old, room_old)
        tile_sums = kernel(
            student=scores.data_ptr(),
            teacher=scores_old.data_ptr(),
            count=scores.numel(),
            run_length=pixel.run_length(tile, classes),
            coefficients=coefficients,
            need_gradient=gradient_maps is not None or part_gradients is not None,
            double_precision=dtype == torch.float64,
            threads=torch.get_num_threads(),
        )
        sums = [a + b for a, b in zip(sums, tile_sums, strict=True)]
        # From here on `scores` holds the gradient on the scores.
        if gradient_maps is not None:
            pixel.write_feature_gradient(scores, parts, gradient_maps, tile)
        if part_gradients is not None:
            pixel.add_weight_gradient(scores, features, part_gradients)
    if gradient_maps is not None and gradient_maps.data_ptr() != feature_gradient.data_ptr():
        feature_gradient.copy_(gradient_maps.view(feature.shape))
    return sums


def _reasoning_loss_fake(
    feature: Tensor,
    weight: Tensor,
    feature_old: Tensor,
    weight_old: Tensor,
    weights: list[float],
    need_feature_gradient: bool,
    need_weight_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = result_type(feature)
    weight_shape = weight.shape if need_weight_gradient else (0,)
    return (
        feature.new_empty((), dtype=dtype),
        feature.new_empty(len(TERMS), dtype=dtype),
        empty_gradient(feature, need_feature_gradient),
        weight.new_empty(weight_shape, dtype=dtype),
    )


register_loss("reasoning_loss", _SCHEMA, cpu=_reasoning_loss_cpu, fake=_reasoning_loss_fake, differentiable=(0, 1))
