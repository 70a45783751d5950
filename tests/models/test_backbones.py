"""Backbones: torchvision's names, dilation that keeps what ImageNet weights mean, output sizes."""

import pytest
import torch

from ciss_fast.models.blocks import StridePlan
from ciss_fast.models.mobilenet import mobilenet_v2
from ciss_fast.models.resnet import Bottleneck, ResNet, resnet18, resnet50, resnet101

# torchvision's classification networks without their classifier: state-dict entries, parameters, output
# channels and a few entries by name and shape.
KNOWN = {
    resnet18: (
        120,
        11_176_512,
        512,
        {
            "conv1.weight": (64, 3, 7, 7),
            "layer1.0.conv1.weight": (64, 64, 3, 3),
            "layer2.0.downsample.0.weight": (128, 64, 1, 1),
            "layer4.1.bn2.running_var": (512,),
        },
    ),
    resnet50: (
        318,
        23_508_032,
        2048,
        {
            "bn1.num_batches_tracked": (),
            "layer1.0.downsample.1.running_mean": (256,),
            "layer3.5.conv3.weight": (1024, 256, 1, 1),
            "layer4.2.bn3.bias": (2048,),
        },
    ),
    resnet101: (
        624,
        42_500_160,
        2048,
        {"layer3.22.conv2.weight": (256, 256, 3, 3), "layer4.0.downsample.0.weight": (2048, 1024, 1, 1)},
    ),
    mobilenet_v2: (
        312,
        2_223_872,
        1280,
        {
            "features.0.0.weight": (32, 3, 3, 3),
            "features.1.conv.0.0.weight": (32, 1, 3, 3),
            "features.1.conv.1.weight": (16, 32, 1, 1),
            "features.2.conv.1.0.weight": (96, 1, 3, 3),
            "features.17.conv.3.running_var": (320,),
            "features.18.0.weight": (1280, 320, 1, 1),
        },
    ),
}


@pytest.mark.parametrize("build", KNOWN, ids=lambda build: build.__name__)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_names_and_shapes_are_torchvisions(build, output_stride):
    entries, parameters, channels, examples = KNOWN[build]
    with torch.device("meta"):
        network = build(output_stride)
    state = network.state_dict()
    assert len(state) == entries
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.out_channels == channels
    assert {name: tuple(state[name].shape) for name in examples} == examples


def small_bottleneck_network(output_stride, dilate_first_block=False):
    return ResNet(Bottleneck, (1, 2, 2, 2), output_stride, dilate_first_block)


def randomise_batch_norms(network):
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)


@pytest.mark.parametrize("build", [resnet18, small_bottleneck_network, mobilenet_v2])
def test_dilated_network_contains_the_imagenet_networks_features(build):
    """With the same weights, every second (fourth) position of the dilated map is the strided network's."""
    torch.manual_seed(0)
    strided = build(32).double().eval()
    randomise_batch_norms(strided)
    images = torch.randn(2, 3, 96, 70, dtype=torch.float64)
    with torch.no_grad():
        expected = strided(images)
        assert expected.shape[-2:] == (3, 3)
        assert expected.std() > 0
        for output_stride, every in ((16, 2), (8, 4)):
            dilated = build(output_stride).double().eval()
            dilated.load_state_dict(strided.state_dict())
            features = dilated(images)
            torch.testing.assert_close(features[..., ::every, ::every], expected, rtol=1e-10, atol=1e-10)

            variant = build(output_stride, dilate_first_block=True).double().eval()
            variant.load_state_dict(strided.state_dict())
            assert not torch.allclose(variant(images)[..., ::every, ::every], expected, rtol=1e-3)


def test_stride_plan():
    plan = StridePlan(8)
    assert [plan.stage(stride) for stride in (2, 2, 1, 2, 2, 1, 2)] == [
        (2, 1, 1), (2, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 2), (1, 2, 4),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"output_stride: expected one of .*, got 4$"):
        StridePlan(4)


@pytest.mark.parametrize("build", [resnet18, mobilenet_v2], ids=lambda b: b.__name__)
def test_random_start_is_kaiming_normal(build):
    torch.manual_seed(0)
    for module in build(16).modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_out = module.weight.shape[0] * module.weight[0, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.2)
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
