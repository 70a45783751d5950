import pytest
import torch

from ciss_fast.engine.schedule import PolySchedule, learning_rate_factor


def test_poly_factors_are_exact():
    assert [learning_rate_factor(i, 4) for i in range(4)] == [1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9]


def test_warm_up_rises_from_its_start_to_the_poly_curve():
    factors = [learning_rate_factor(i, 10, warmup=0.4, warmup_start=0.001) for i in range(10)]
    poly = [(1 - i / 10) ** 0.9 for i in range(10)]
    ramp = [0.001, 0.001 + 0.999 * 1 / 4, 0.001 + 0.999 * 2 / 4, 0.001 + 0.999 * 3 / 4]
    assert factors[:4] == [p * r for p, r in zip(poly, ramp, strict=False)]
    assert factors[4:] == poly[4:]


def test_power_zero_is_constant():
    assert [learning_rate_factor(i, 5, power=0) for i in range(5)] == [1.0] * 5


def test_every_group_follows_from_its_own_start():
    first, second = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 1.0}])
    schedule = PolySchedule(optimiser, 4, power=0.9, warmup=0.0, warmup_start=0.001)
    seen = []
    for iteration in range(4):
        schedule.set_iteration(iteration)
        seen.append([group["lr"] for group in optimiser.param_groups])
    assert seen == [[0.1 * f, 1.0 * f] for f in (1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9)]
    assert schedule.learning_rate == pytest.approx(0.25**0.9, rel=0, abs=0)
