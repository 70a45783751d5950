"""Small pieces that the backbones and the segmentation head share."""

from __future__ import annotations

from torch import nn

OUTPUT_STRIDES = (8, 16, 32)


class StridePlan:
    """Turns strides into dilation once the wanted output stride is reached (Chen et al. 2017, DeepLab-v3).

    A backbone asks for each stage in turn: ``stride, first_dilation, dilation = plan.stage(2)``. The stage's
    first (formerly strided) convolution keeps the dilation of the stage before, everything after it gets the
    stage's own. With that rule the dilated network computes, at every n-th position, exactly what the
    ImageNet network computes, so ImageNet weights keep their meaning.
    """

    def __init__(self, output_stride: int, dilate_first_block: bool = False) -> None:
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"output_stride: expected one of {OUTPUT_STRIDES}, got {output_stride}")
        self._allowed = output_stride
        self._dilate_first = dilate_first_block
        self._stride = 1
        self._dilation = 1

    def stage(self, stride: int) -> tuple[int, int, int]:
        """Return (stride to use, dilation of the first convolution, dilation of the later ones)."""
        before = self._dilation
        if self._stride * stride > self._allowed:
            self._dilation *= stride
            return 1, self._dilation if self._dilate_first else before, self._dilation
        self._stride *= stride
        return stride, before, before


def conv3x3(inputs: int, outputs: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias whose padding keeps ceil(size / stride) at any dilation."""
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, groups, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


def initialise(module: nn.Module) -> None:
    """Kaiming-normal convolutions (fan out, ReLU; He et al. 2015), batch norms at weight 1 and bias 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
