"""ResNet-18, -50 and -101 as feature extractors, with torchvision's state-dict names (He et al. 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import StridePlan, conv1x1, conv3x3, initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the stride sits in the first."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, first_dilation: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, width, stride, first_dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(width, width, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the stride sits in the 3x3 one."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, first_dilation: int, dilation: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, first_dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """ResNet without its pooling and classifier: images [B, 3, H, W] -> features [B, out_channels, h, w].

    h = ceil(H / output_stride), w alike. ``out_channels`` is 512 (ResNet-18) or 2,048.
    """

    classifier_prefix = "fc."

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, ...],
        output_stride: int,
        dilate_first_block: bool,
    ) -> None:
        super().__init__()
        plan = StridePlan(output_stride, dilate_first_block)
        self.conv1 = nn.Conv2d(3, 64, 7, plan.stage(2)[0], 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, plan.stage(2)[0], 1)
        channels = 64
        for number, (depth, stride) in enumerate(zip(depths, (1, 2, 2, 2), strict=True), start=1):
            width = 64 * 2 ** (number - 1)
            stride, first_dilation, dilation = plan.stage(stride)
            blocks = []
            for _ in range(depth):
                blocks.append(block(channels, width, stride, first_dilation, dilation))
                channels, stride, first_dilation = width * block.expansion, 1, dilation
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.out_channels = channels
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def resnet18(output_stride: int = 16, dilate_first_block: bool = False) -> ResNet:
    """ResNet-18, 512 output channels."""
    return ResNet(BasicBlock, (2, 2, 2, 2), output_stride, dilate_first_block)


def resnet50(output_stride: int = 16, dilate_first_block: bool = False) -> ResNet:
    """ResNet-50, 2,048 output channels."""
    return ResNet(Bottleneck, (3, 4, 6, 3), output_stride, dilate_first_block)


def resnet101(output_stride: int = 16, dilate_first_block: bool = False) -> ResNet:
    """ResNet-101, 2,048 output channels; the backbone of the published results."""
    return ResNet(Bottleneck, (3, 4, 23, 3), output_stride, dilate_first_block)
