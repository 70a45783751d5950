"""Checks of the Triton kernels of `prototypes` (see triton_testing.py)."""

from __future__ import annotations

import math

import torch
from triton_inputs import conftest_of, fill_fresh_memory

import ciss_fast

shared = conftest_of(__file__)


def moved(inputs, device: torch.device):
    return type(inputs)(*(t.to(device) for t in inputs))


def check(inputs, device: torch.device, *, temperature: float = 10.0, tolerance: float | None = None) -> None:
    """Within 1e-5 (1e-12 in double precision) of the formulas; see `assert_matches` of the other tests."""
    fill_fresh_memory(device)
    double = torch.float64 in [t.dtype for t in inputs]
    result = ciss_fast.prototypes(*moved(inputs, device), temperature, backend="triton")
    assert {t.dtype for t in result} == {torch.float64 if double else torch.float32}
    scales = tuple(float(t.double().abs().max()) for t in inputs[:2])
    expected = shared.define(inputs, temperature)
    shared.assert_close([t.cpu() for t in result], expected, tolerance or (1e-12 if double else 1e-5), scales)


def check_sizes(device: torch.device) -> None:
    for sizes in ((1, 1, 1, 1), (33, 9, 29, 17), (50, 3, 7, 13), (130, 2, 140, 33)):
        check(shared.draw(*sizes), device)


def slow_check_larger_sizes(device: torch.device) -> None:
    check(shared.draw(600, 35, 2, 70), device)
    check(shared.draw(600, 2, 70, 40, dtype=torch.float64), device)


def check_types(device: torch.device) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        inputs = shared.draw(40, 2, 14, 19)
        check(type(inputs)(*(t.to(dtype) for t in inputs)), device)
        check(inputs._replace(memory=inputs.memory.to(dtype)), device)
        check(inputs._replace(feature_curr=inputs.feature_curr.to(dtype)), device)


def check_layouts(device: torch.device) -> None:
    inputs = shared.draw(48, 3, 14, 20)
    expected = ciss_fast.prototypes(*moved(inputs, device), backend="triton")

    def embedded(t):  # every other row and every third element of something larger
        room = torch.full([*t.shape[:-2], 2 * t.shape[-2], 3 * t.shape[-1]], torch.nan, dtype=t.dtype, device=device)
        room[..., ::2, 1::3] = t.to(device)
        return room[..., ::2, 1::3]

    transposed = [t.to(device).transpose(-1, -2).contiguous().transpose(-1, -2) for t in inputs]
    classes_inside = inputs.memory.to(device).transpose(0, 1).contiguous().transpose(0, 1)
    features = moved(inputs, device)[:2]
    for view in ([embedded(t) for t in inputs], transposed, [*features, classes_inside]):
        result = ciss_fast.prototypes(*view, backend="triton")
        assert all(map(torch.equal, result, expected))


def check_lengths(device: torch.device) -> None:
    # They do not matter for the weights, nor do they overflow or vanish.
    inputs = shared.draw(60, 3, 14, 24, dtype=torch.float64)
    factors = 10.0 ** torch.linspace(-10, 25, 60, dtype=torch.float64)
    memory = inputs.memory * 10.0 ** torch.linspace(-10, 25, 14, dtype=torch.float64)[:, None]
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        scaled = inputs._replace(feature_prev=inputs.feature_prev * factors[:, None], memory=memory)
        check(type(scaled)(*(t.to(dtype) for t in scaled)), device)
    inputs = shared.draw(40, 3, 14, 20)
    inputs.feature_prev[::3] = 0
    inputs.memory[0, ::2] = 0
    inputs.memory[1] = 0  # cosine 0 everywhere: the mean over the positions
    check(inputs, device)


def check_temperature(device: torch.device) -> None:
    # 0.3 is no number of single precision, in which kernels get their arguments.
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        for temperature in (1e-6, 0.3, 1000.1):
            inputs = shared.draw(dtype=dtype)
            check(inputs, device, temperature=temperature, tolerance=tolerance * max(temperature, 1))


def _close_positions(device: torch.device, classes: int, dtype: torch.dtype, tolerance: float) -> None:
    # Scores of several thousand, of which exp has to see the thousandths.
    inputs = shared.draw_close(300, classes, 1000, 64, dtype=dtype)
    weight = (10 * shared.scores(inputs)).softmax(dim=1)
    assert weight.max() < 0.5 and ((weight > 1e-3).sum(dim=1) > 20).all()
    result = ciss_fast.prototypes(*moved(inputs, device), backend="triton")
    shared.assert_close([t.cpu() for t in result], shared.define(inputs), tolerance)


def check_a_thousand_features_a_class(device: torch.device) -> None:
    _close_positions(device, 1, torch.float32, 1e-4)


def slow_check_a_thousand_features_in_double_precision(device: torch.device) -> None:
    _close_positions(device, 2, torch.float64, 1e-11)


def check_log_of_the_sum(device: torch.device) -> None:
    inputs = shared.draw(70, 3, 20, 13)
    *_, log_sum = torch.ops.ciss_fast.prototypes(*moved(inputs, device), 7.0, backend="triton")
    expected = (7.0 * shared.scores(inputs)).logsumexp(dim=1)
    torch.testing.assert_close(log_sum.cpu(), expected, rtol=1e-6, atol=1e-5)


def check_accumulator(device: torch.device) -> None:
    inputs = shared.draw(90, 3, 7, 13)
    accumulator = ciss_fast.PrototypeAccumulator(inputs.memory.to(device), backend="triton")
    for part in (slice(0, 10), slice(10, 75), slice(75, 90)):
        accumulator.update(inputs.feature_prev[part].to(device), inputs.feature_curr[part].to(device))
    shared.assert_close([t.cpu() for t in accumulator.result()], shared.define(inputs), 1e-5)


def check_not_finite(device: torch.device) -> None:
    for value in (math.nan, math.inf, -math.inf):
        for name, place in (("feature_prev", (31, 4)), ("memory", (1, 3, 2)), ("feature_curr", (7, 5))):
            inputs = shared.draw(40, 3, 7, 13)
            getattr(inputs, name)[place] = value
            prev, curr = ciss_fast.prototypes(*moved(inputs, device), backend="triton")
            if name == "feature_prev":
                assert prev.isnan().all() and curr.isnan().all()
            elif name == "memory":
                assert prev[1].isnan().all() and curr[1].isnan().all() and prev[[0, 2]].isfinite().all()
            else:
                assert prev.isfinite().all() and not curr[:, 5].isfinite().any()


def check_no_classes(device: torch.device) -> None:
    for value in ciss_fast.prototypes(*moved(shared.draw(9, 0), device), backend="triton"):
        assert value.shape == (0, 13) and value.dtype == torch.float32


def check_same_bits(device: torch.device) -> None:
    inputs = moved(shared.draw(700, 3, 40, 33), device)
    results = [torch.ops.ciss_fast.prototypes(*inputs, 10.0, backend="triton") for _ in range(2)]
    assert all(map(torch.equal, *results))
