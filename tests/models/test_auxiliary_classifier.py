"""The auxiliary classifier of the sigmoid family: channel 0, learnt from detached features."""

import pytest
import torch

from ciss_fast.errors import ConfigError
from ciss_fast.models import build_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("mobilenet_v2", 16, [4, 2], head_channels=16, auxiliary_classifier=True)


def test_channels_are_numbered_as_in_the_softmax_family(model):
    model.add_classifier(3)
    assert model.classes_per_step == [4, 2, 3]
    assert model.num_classes == 9
    assert model.auxiliary.out_channels == 1
    assert [classifier.out_channels for classifier in model.classifiers] == [3, 2, 3]
    with torch.no_grad():
        logits, features, weight = model.eval()(torch.randn(2, 3, 64, 64))
    parts = [model.auxiliary, *model.classifiers]
    assert torch.equal(logits, torch.cat([part(features) for part in parts], dim=1))
    assert torch.equal(weight, torch.cat([part.weight[:, :, 0, 0] for part in parts]))


def test_weights_times_features_and_biases_are_the_logits(model):
    logits, features, weight = model.double().eval()(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    bias = torch.cat([part.bias for part in [model.auxiliary, *model.classifiers]])
    expected = torch.einsum("bdhw,cd->bchw", features, weight) + bias[:, None, None]
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_auxiliary_logit_teaches_the_auxiliary_classifier_alone(model, autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(torch.randn(2, 3, 64, 64))
    output.features.retain_grad()
    output.logits[:, 0].float().square().mean().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"auxiliary.weight", "auxiliary.bias"}
    assert output.features.grad is None or not output.features.grad.any()


def test_the_other_logits_teach_everything_else(model):
    output = model(torch.randn(2, 3, 64, 64))
    output.logits[:, 1:].sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"auxiliary.weight", "auxiliary.bias"} == {name for name, _ in model.named_parameters()} - reached


def test_weight_rows_carry_gradients_to_their_classifiers(model):
    weight = model(torch.randn(2, 3, 64, 64)).weight
    coefficient = torch.arange(1.0, 7.0)
    (weight * coefficient[:, None]).sum().backward()
    for part, rows in zip([model.auxiliary, *model.classifiers], coefficient.split([1, 3, 2]), strict=True):
        assert torch.equal(part.weight.grad, rows[:, None, None, None].expand_as(part.weight))
        assert part.bias.grad is None


def test_teacher_is_a_copy_without_gradients(model):
    teacher = model.frozen_copy()
    images = torch.randn(2, 3, 64, 64)
    before = teacher(images)
    assert not any(entry.requires_grad for entry in before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model.add_classifier(1)
    for ours, theirs in zip(teacher(images), before, strict=True):
        assert torch.equal(ours, theirs)


def test_state_dict_round_trip(model):
    assert {"auxiliary.weight", "auxiliary.bias"} <= model.state_dict().keys()
    other = build_model(
        "mobilenet_v2", 16, model.classes_per_step, head_channels=16, auxiliary_classifier=True
    )
    other.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(model.eval()(images), other.eval()(images), strict=True):
            assert torch.equal(ours, theirs)


def test_without_one_there_is_no_trace_of_it():
    model = build_model("mobilenet_v2", 16, [4], head_channels=16)
    assert model.auxiliary is None
    assert not any("auxiliary" in key for key in model.state_dict())
    with pytest.raises(RuntimeError, match="auxiliary"):
        with_one = build_model("mobilenet_v2", 16, [4], head_channels=16, auxiliary_classifier=True)
        model.load_state_dict(with_one.state_dict())


def test_shapes_without_memory():
    with torch.device("meta"):
        model = build_model("resnet18", 16, [16], auxiliary_classifier=True)
        model.add_classifier(5)
        output = model.eval()(torch.empty(2, 3, 64, 48))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert output.logits.shape == (2, 21, 4, 3)
    assert output.features.shape == (2, 256, 4, 3)
    assert output.weight.shape == (21, 256)


def test_memory_layout_does_not_matter(model):
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval()(images)
        model.to(memory_format=torch.channels_last)
        output = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert torch.equal(output.weight, expected.weight)


def test_weights_stay_float32_under_autocast(model):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model.eval()(torch.randn(2, 3, 64, 64))
    assert output.logits.dtype == output.features.dtype == torch.bfloat16
    assert output.weight.dtype == torch.float32


def test_a_first_step_without_a_class():
    message = "^num_classes: the first step needs at least 1 class beside channel 0, got 0$"
    with pytest.raises(ConfigError, match=message):
        build_model("mobilenet_v2", 16, [1], head_channels=16, auxiliary_classifier=True)
    with pytest.raises(ConfigError, match="^num_classes: a classifier needs at least 1 class, got 0$"):
        build_model("mobilenet_v2", 16, [2, 0], head_channels=16, auxiliary_classifier=True)
