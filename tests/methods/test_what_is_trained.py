"""Which parameters and batch-norm statistics an iteration moves, and which stay bit-equal."""

import pytest
import torch
from torch import nn

from ciss_fast.errors import ConfigError
from ciss_fast.methods import MethodSettings, get_method

PARTS = {"backbone", "aspp", "head"}
METHODS = ["fine-tuning", "mib", "alife", "dkd"]

# Parts whose batch norms are frozen, by freeze_batch_norm and (method, step > 0).
FROZEN = {
    "published": {("alife", True): {"backbone", "aspp"}, ("dkd", True): PARTS},
    "backbone": {
        **{(name, later): {"backbone"} for name in METHODS for later in (False, True)},
        ("alife", True): {"backbone", "aspp"},
        ("dkd", True): PARTS,
    },
    "backbone_only": {(name, later): {"backbone"} for name in METHODS for later in (False, True)},
    "all": {(name, later): PARTS for name in METHODS for later in (False, True)},
    "none": {},
}


def batch_norm_names(model):
    return {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


def one_iteration(model, method, step, settings):
    """One SGD update on a loss in which every channel has a part."""
    method.set_train_mode(model, step, settings)
    optimiser = torch.optim.SGD(
        method.parameter_groups(model, step, settings, 0.1), momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    torch.manual_seed(3)
    logits = model(torch.randn(2, 3, 64, 64)).logits
    (logits.square().sum() + logits.sum()).backward()
    optimiser.step()


@pytest.mark.parametrize("freeze", FROZEN)
@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("name", METHODS)
def test_frozen_batch_norms_stay_and_all_else_moves(name, step, freeze, model_at):
    model = model_at(name, step)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one_iteration(model, get_method(name), step, MethodSettings(freeze_batch_norm=freeze))

    norms = batch_norm_names(model)
    frozen_parts = FROZEN[freeze].get((name, step > 0), set())
    frozen = {norm for norm in norms if norm.split(".")[0] in frozen_parts}
    assert len(norms) == 52 + 6 + 1  # MobileNetV2, ASPP with its projection, head
    for key, value in model.state_dict().items():
        stays = key.rpartition(".")[0] in frozen
        assert torch.equal(value, before[key]) == stays, f"{key} should {'stay' if stays else 'move'}"


@pytest.mark.parametrize("name", METHODS)
def test_frozen_batch_norms_use_their_running_statistics(name, model_at):
    """With all of them frozen and no dropout, training mode computes what evaluation mode computes."""
    model = model_at(name, 1)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        get_method(name).set_train_mode(model, 1, MethodSettings(freeze_batch_norm="all"))
        in_training = model(images).logits
        assert torch.equal(model.eval()(images).logits, in_training)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("step", "at_later_steps", "on"), [(0, False, True), (1, False, False), (1, True, True)]
)
def test_dropout(name, step, at_later_steps, on, model_at):
    model = model_at(name, step)
    settings = MethodSettings(dropout_at_later_steps=at_later_steps)
    get_method(name).set_train_mode(model, step, settings)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images).logits, model(images).logits) != on


def test_set_train_mode_forgets_the_step_before(model_at):
    """A model that went through evaluation and other settings is as trainable as a new one."""
    model = model_at("alife", 1)
    method = get_method("alife")
    method.set_train_mode(model, 1, MethodSettings(freeze_batch_norm="all"))
    model.eval()
    method.set_train_mode(model, 1, MethodSettings(freeze_batch_norm="none"))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {name for name, module in model.named_modules() if not module.training} == {"aspp.project.3"}


@pytest.mark.parametrize("freeze", FROZEN)
@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_every_trainable_parameter_is_in_exactly_one_group(name, step, freeze, model_at):
    model, method = model_at(name, step), get_method(name)
    settings = MethodSettings(freeze_batch_norm=freeze)
    method.set_train_mode(model, step, settings)
    groups = method.parameter_groups(model, step, settings, 0.1)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == trainable


def test_group_names_members_and_learning_rates(model_at):
    model, method = model_at("alife", 2), get_method("alife")
    settings = MethodSettings(
        backbone_lr_multiplier=0.1,
        head_lr_multiplier=1.0,
        old_classifiers_lr_multiplier=2.0,
        new_classifier_lr_multiplier=10.0,
    )
    method.set_train_mode(model, 2, settings)
    groups = method.parameter_groups(model, 2, settings, 0.5)
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("backbone", 0.5 * 0.1),
        ("head", 0.5),
        ("old_classifiers", 1.0),
        ("new_classifier", 5.0),
    ]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    members = {group["name"]: {names[id(p)] for p in group["params"]} for group in groups}
    assert members["new_classifier"] == {"classifiers.2.weight", "classifiers.2.bias"}
    assert members["old_classifiers"] == {
        f"classifiers.{number}.{kind}" for number in (0, 1) for kind in ("weight", "bias")
    }
    assert {name.split(".")[0] for name in members["backbone"]} == {"backbone"}
    assert {name.split(".")[0] for name in members["head"]} == {"aspp", "head"}


def test_a_multiplier_of_zero_freezes_the_group_and_only_it(model_at):
    model, method = model_at("mib", 1), get_method("mib")
    settings = MethodSettings(backbone_lr_multiplier=0.0)
    method.set_train_mode(model, 1, settings)
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone"}
    assert not any(p.requires_grad for p in model.backbone.parameters())
    groups = method.parameter_groups(model, 1, settings, 1.0)
    assert [group["name"] for group in groups] == ["head", "old_classifiers", "new_classifier"]
    method.set_train_mode(model, 1, MethodSettings())
    assert all(p.requires_grad for p in model.parameters())


def test_nothing_to_train_is_an_error(model_at):
    names = ("backbone", "head", "old_classifiers", "new_classifier")
    settings = MethodSettings(**{f"{name}_lr_multiplier": 0.0 for name in names})
    model, method = model_at("mib", 1), get_method("mib")
    method.set_train_mode(model, 1, settings)
    with pytest.raises(ConfigError, match="^learning-rate multipliers: expected at least one above 0, got 0"):
        method.parameter_groups(model, 1, settings, 1.0)


def test_base_step_has_no_old_classifiers(model_at):
    model, method = model_at("mib", 0), get_method("mib")
    method.set_train_mode(model, 0, MethodSettings())
    groups = method.parameter_groups(model, 0, MethodSettings(), 1.0)
    assert [group["name"] for group in groups] == ["backbone", "head", "new_classifier"]


def test_groups_of_an_unprepared_model(model_at):
    with pytest.raises(ValueError, match="^model: expected 2 classifiers at step 1, got 1$"):
        get_method("mib").parameter_groups(model_at("mib", 0), 1, MethodSettings(), 1.0)
