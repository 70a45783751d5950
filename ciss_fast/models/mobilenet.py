"""MobileNetV2 as a feature extractor, with torchvision's state-dict names (Sandler et al. 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import StridePlan, conv1x1, conv3x3, initialise

# Table 2 of the paper: expansion, output channels, number of blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv_norm_relu(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 expansion (unless 1), 3x3 depthwise convolution, linear 1x1 projection.

    The shortcut is there where the number of channels stays; every strided block changes it.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, dilation: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_norm_relu(conv1x1(inputs, hidden)))
        layers.append(_conv_norm_relu(conv3x3(hidden, hidden, stride, dilation, groups=hidden)))
        layers += [conv1x1(hidden, outputs), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 (width 1.0) without its classifier: images [B, 3, H, W] -> features [B, 1280, h, w]."""

    classifier_prefix = "classifier."
    out_channels = 1280

    def __init__(self, output_stride: int = 16, dilate_first_block: bool = False) -> None:
        super().__init__()
        plan = StridePlan(output_stride, dilate_first_block)
        layers: list[nn.Module] = [_conv_norm_relu(conv3x3(3, 32, plan.stage(2)[0]))]
        channels = 32
        for expansion, outputs, blocks, first_stride in STAGES:
            stride, block_dilation, dilation = plan.stage(first_stride)
            for _ in range(blocks):
                layers.append(InvertedResidual(channels, outputs, expansion, stride, block_dilation))
                channels, stride, block_dilation = outputs, 1, dilation
        layers.append(_conv_norm_relu(conv1x1(channels, self.out_channels)))
        self.features = nn.Sequential(*layers)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


def mobilenet_v2(output_stride: int = 16, dilate_first_block: bool = False) -> MobileNetV2:
    """MobileNetV2 at width 1.0, 1,280 output channels."""
    return MobileNetV2(output_stride, dilate_first_block)
