"""How a step's new classifier starts, and what the step's preparation leaves alone."""

import math

import pytest
import torch

from ciss_fast.methods import MethodSettings, get_method


def copy_of_state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["mib", "alife"])
def test_new_classes_start_from_background(name, model_at):
    model = model_at(name, 0)
    before = copy_of_state(model)
    get_method(name).prepare_step(model, 1, 3)
    after = model.state_dict()

    background_bias = before["classifiers.0.bias"][0] - math.log(3 + 1)
    assert model.classes_per_step == [4, 3]
    for new in range(3):
        assert torch.equal(after["classifiers.1.weight"][new], before["classifiers.0.weight"][0])
        assert after["classifiers.1.bias"][new] == background_bias
    assert after["classifiers.0.bias"][0] == background_bias

    before["classifiers.0.bias"][0] = background_bias
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["mib", "alife"])
def test_background_probability_is_shared_and_the_others_stay(name, model_at):
    """What the initialisation is for: old classes keep their probability, background's is split evenly."""
    model = model_at(name, 0).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        before = model(images).logits.softmax(1)
        get_method(name).prepare_step(model, 1, 3)
        after = model(images).logits.softmax(1)
    torch.testing.assert_close(after[:, 1:4], before[:, 1:4])
    for channel in (0, 4, 5, 6):
        torch.testing.assert_close(after[:, channel], before[:, 0] / 4)


@pytest.mark.parametrize("name", ["mib", "alife"])
def test_background_is_that_of_the_first_classifier_at_every_step(name, model_at):
    model = model_at(name, 1)
    before = copy_of_state(model)
    get_method(name).prepare_step(model, 2, 1)
    after = model.state_dict()
    background_bias = before["classifiers.0.bias"][0] - math.log(2)
    assert torch.equal(after["classifiers.2.weight"], before["classifiers.0.weight"][:1])
    assert torch.equal(after["classifiers.2.bias"], background_bias.reshape(1))
    assert torch.equal(after["classifiers.1.weight"], before["classifiers.1.weight"])
    assert torch.equal(after["classifiers.1.bias"], before["classifiers.1.bias"])


def test_fine_tuning_starts_at_random(model_at):
    """PyTorch's default start, and nothing old is touched."""
    model = model_at("fine-tuning", 0)
    before = copy_of_state(model)
    torch.manual_seed(7)
    get_method("fine-tuning").prepare_step(model, 1, 3)
    torch.manual_seed(7)
    expected = torch.nn.Conv2d(16, 3, 1)
    assert torch.equal(model.classifiers[1].weight, expected.weight)
    assert torch.equal(model.classifiers[1].bias, expected.bias)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("name", ["mib", "alife", "dkd"])
def test_a_random_start_on_request(name, model_at):
    """PyTorch's default start, and nothing old is touched."""
    model = model_at(name, 1)
    before = copy_of_state(model)
    torch.manual_seed(7)
    get_method(name).prepare_step(model, 2, 3, MethodSettings(new_classifier_start="random"))
    torch.manual_seed(7)
    expected = torch.nn.Conv2d(16, 3, 1)
    assert torch.equal(model.classifiers[2].weight, expected.weight)
    assert torch.equal(model.classifiers[2].bias, expected.bias)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize("step", [1, 2])
def test_dkd_starts_from_the_auxiliary_classifier(step, model_at):
    """Weight and bias of every new class; the auxiliary classifier goes on, nothing old is touched."""
    model = model_at("dkd", step - 1)
    with torch.no_grad():  # as if it had learnt something of its own
        model.auxiliary.weight.normal_()
        model.auxiliary.bias.fill_(-1.25)
    before = copy_of_state(model)
    get_method("dkd").prepare_step(model, step, 3, MethodSettings())
    after = model.state_dict()
    assert model.classes_per_step == [4, 2][:step] + [3]
    for new in range(3):
        assert torch.equal(after[f"classifiers.{step}.weight"][new], before["auxiliary.weight"][0])
        assert torch.equal(after[f"classifiers.{step}.bias"][new], before["auxiliary.bias"][0])
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_dkd_new_logits_start_as_the_auxiliary_one(model_at):
    model = model_at("dkd", 0).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(images).logits
        get_method("dkd").prepare_step(model, 1, 2)
        after = model(images).logits
    assert torch.equal(after[:, :4], before)
    torch.testing.assert_close(after[:, 4:], before[:, :1].expand(-1, 2, -1, -1))


@pytest.mark.parametrize("name", ["fine-tuning", "joint", "mib", "alife", "dkd", "dkd-m"])
def test_base_step_has_nothing_to_prepare(name, model_at):
    model = model_at(name, 0)
    before = copy_of_state(model)
    get_method(name).prepare_step(model, 0, 4)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_wrong_moment(model_at):
    method = get_method("mib")
    with pytest.raises(ValueError, match=r"^model: expected one classifier of 5, got \[4\]$"):
        method.prepare_step(model_at("mib", 0), 0, 5)
    with pytest.raises(ValueError, match=r"^model: expected 2 classifiers before step 2, got 1$"):
        method.prepare_step(model_at("mib", 0), 2, 1)


def test_wrong_model(model_at):
    message = "^model: auxiliary classifier: {} expected {}, got {}$"
    with pytest.raises(ValueError, match=message.format("mib", "none", "one")):
        get_method("mib").prepare_step(model_at("dkd", 0), 1, 2)
    with pytest.raises(ValueError, match=message.format("dkd", "one", "none")):
        get_method("dkd").prepare_step(model_at("mib", 0), 0, 4)
