"""The segmentation network: shapes, classifiers in learning order, image pooling, bad arguments."""

import pytest
import torch
from torch import nn

from ciss_fast.errors import ConfigError
from ciss_fast.models import build_model


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize(
    ("output_stride", "size", "expected"),
    [
        (16, (64, 64), (4, 4)),
        (8, (64, 64), (8, 8)),
        (16, (65, 33), (5, 3)),
        (8, (65, 33), (9, 5)),
        (16, (7, 1), (1, 1)),
    ],
)
def test_output_shapes(backbone, output_stride, size, expected):
    torch.manual_seed(0)
    model = build_model(backbone, output_stride, [4, 2, 1]).eval()
    with torch.no_grad():
        output = model(torch.randn(2, 3, *size))
    assert output.logits.shape == (2, 7, *expected)
    assert output.features.shape == (2, 256, *expected)


def test_logits_are_the_classifiers_in_learning_order():
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", 16, [4, 2], head_channels=32).eval()
    model.add_classifier(3)
    assert model.classes_per_step == [4, 2, 3]
    assert model.num_classes == 9
    with torch.no_grad():
        logits, features, weight = model(torch.randn(2, 3, 64, 64))
        for classifier, part in zip(model.classifiers, logits.split([4, 2, 3], dim=1), strict=True):
            assert torch.equal(classifier(features), part)
    assert features.min() == 0  # after a ReLU
    assert torch.equal(weight, torch.cat([classifier.weight[:, :, 0, 0] for classifier in model.classifiers]))


def test_a_new_classifier_is_made_like_the_others():
    model = build_model("mobilenet_v2", 16, [4], head_channels=32).double()
    classifier = model.add_classifier(2)
    assert classifier is model.classifiers[-1]
    assert classifier.weight.dtype == torch.float64
    assert classifier.weight.shape == (2, 32, 1, 1)
    assert classifier.bias.shape == (2,)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
def test_aspp_rates(output_stride, rates):
    with torch.device("meta"):
        model = build_model("mobilenet_v2", output_stride, [4])
    assert [branch[0].dilation[0] for branch in model.aspp.convs[1:4]] == rates


def test_image_pooling_is_the_mean_of_the_map():
    """The fifth branch: every position has the same value, computed from the mean over positions."""
    torch.manual_seed(0)
    pooling = build_model("mobilenet_v2", 16, [4], head_channels=16).eval().aspp.convs[4]
    features = torch.randn(2, 1280, 3, 5)
    with torch.no_grad():
        spread = pooling(features)
        single = pooling(features.mean(dim=(2, 3), keepdim=True))
    assert spread.shape == (2, 16, 3, 5)
    torch.testing.assert_close(spread, single.expand_as(spread), rtol=1e-5, atol=1e-6)
    assert torch.equal(spread, spread[..., :1, :1].expand_as(spread))


def test_a_batch_of_one_in_training_is_a_clear_error():
    model = build_model("mobilenet_v2", 16, [4], head_channels=16).train()
    with pytest.raises(ConfigError, match="^a batch of 1 image: .* at least 2 images") as caught:
        model(torch.randn(1, 3, 64, 64))
    assert "\n" not in str(caught.value)
    model.aspp.convs[4][2].eval()
    assert model(torch.randn(1, 3, 64, 64)).logits.shape == (1, 4, 4, 4)


def test_frozen_copy_is_independent():
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", 16, [4], head_channels=16)
    teacher = model.frozen_copy()
    assert model.training and not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model.add_classifier(1)
    after = teacher.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_state_dict_round_trip():
    """A checkpoint holds all that is needed beside the arguments of build_model."""
    torch.manual_seed(0)
    model = build_model("resnet18", 8, [3, 2], head_channels=16)
    other = build_model("resnet18", 8, model.classes_per_step, head_channels=16)
    other.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images).logits, other.eval()(images).logits)


def test_no_parameter_is_left_without_gradient():
    """Distributed training waits for the gradient of every parameter."""
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", 16, [4, 1], head_channels=16)
    model(torch.randn(2, 3, 64, 64)).logits.sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_dropout_rate():
    with torch.device("meta"):
        model = build_model("mobilenet_v2", 16, [4], dropout=0.1)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"backbone": "vgg"},
            "backbone: unknown name 'vgg', known: mobilenet_v2, resnet101, resnet18, resnet50",
        ),
        ({"output_stride": 32}, "output_stride: expected 8 or 16, got 32"),
        ({"classes_per_step": []}, "classes_per_step: expected at least one step, got an empty list"),
        ({"classes_per_step": [3, 0]}, "num_classes: a classifier needs at least 1 class, got 0"),
        ({"dropout": 1.0}, "dropout: expected a rate in [0, 1), got 1.0"),
        ({"head_channels": 0}, "head_channels: expected at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError) as caught:
        build_model(**{"backbone": "mobilenet_v2", **arguments})
    assert str(caught.value) == message


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64)])
def test_bad_images(shape):
    model = build_model("mobilenet_v2", 16, [4], head_channels=16)
    with pytest.raises(ValueError, match=r"^images: expected shape \[B, 3, H, W\], got \[.*\]$"):
        model(torch.zeros(shape))
