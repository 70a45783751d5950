"""The mechanics of an iteration: optimiser, gradients, clipping, and the teacher that stays as it was."""

import math

import pytest
import torch
from torch import nn

from ciss_fast.engine import stages
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.config import Config
from ciss_fast.engine.loop import update
from ciss_fast.engine.train_step import build_optimiser, step_epochs, step_learning_rate


def groups_of_two() -> list[dict]:
    return [{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in (0.5, 0.25)]


def test_sgd_is_the_published_one_by_default():
    optimiser = build_optimiser(groups_of_two(), Config().optimisation, 1)
    assert type(optimiser) is torch.optim.SGD
    assert [group["lr"] for group in optimiser.param_groups] == [0.5, 0.25]
    for group in optimiser.param_groups:
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-4)
        assert group["dampening"] == 0


def test_sgd_without_momentum_and_adamw():
    plain = build_optimiser(groups_of_two(), Config().with_settings({"momentum": 0}).optimisation, 0)
    assert [(group["momentum"], group["nesterov"]) for group in plain.param_groups] == [(0, False)] * 2
    settings = Config().with_settings({"optimiser": "adamw", "weight_decay": 0.5}).optimisation
    adamw = build_optimiser(groups_of_two(), settings, 0)
    assert type(adamw) is torch.optim.AdamW
    assert [(group["lr"], group["weight_decay"]) for group in adamw.param_groups] == [(0.5, 0.5), (0.25, 0.5)]


@pytest.mark.parametrize(("base", "later"), [("adamw", "sgd"), ("sgd", "adamw"), ("adamw", None)])
def test_later_steps_may_have_another_optimiser(base, later):
    settings = Config().with_settings({"optimiser": base, "later_optimiser": later}).optimisation
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    for step, name in ((0, base), (1, later or base), (2, later or base)):
        assert type(build_optimiser(groups_of_two(), settings, step)) is kinds[name]


@pytest.mark.parametrize(("clip_norm", "step"), [(None, 3.0), (10, 3.0), (1, 1 / math.sqrt(2))])
def test_an_update_is_that_of_its_own_gradient_clipped_as_a_whole(clip_norm, step):
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimiser = torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)
    for iteration in (1, 2):  # the second must not contain the first one's gradient
        losses = (3 * parameter.sum() for parameter in parameters)  # their gradients are summed
        update(optimiser, losses, clip_norm, torch.amp.GradScaler(enabled=False))
        for parameter in parameters:
            assert parameter.item() == pytest.approx(-iteration * step, rel=1e-5)


def test_epochs_and_learning_rates_of_the_steps():
    settings = {"epochs_base": 3, "epochs_later": "2,0.5", "lr_base": 0.5, "lr_later": "0.25,0.125"}
    config = Config().with_settings(settings)
    assert [step_epochs(config, step) for step in range(3)] == [3, 2, 0.5]
    assert [step_learning_rate(config, step) for step in range(3)] == [0.5, 0.25, 0.125]


def test_teacher_is_the_model_of_the_step_before_and_stays_so(alife_run, tmp_path, tiny_train, monkeypatch):
    seen = {}
    original = stages.train_model

    def watched(context, batches):
        original(context, batches)
        seen[context.step] = context.model, context.teacher

    monkeypatch.setattr(stages, "train_model", watched)
    tiny_train(tmp_path / "run", method="alife", base_from=str(alife_run))
    assert sorted(seen) == [1, 2]
    for step, (model, teacher) in seen.items():
        before = load_checkpoint(checkpoint_path(tmp_path / "run", step - 1)).model
        assert teacher.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
        assert not torch.equal(model.state_dict()["head.0.weight"], before["head.0.weight"])
