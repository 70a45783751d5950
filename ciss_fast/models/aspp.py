"""Atrous spatial pyramid pooling (Chen et al. 2017, DeepLab-v3) with torchvision's state-dict names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .blocks import conv1x1, conv3x3, initialise


class ImagePooling(nn.Sequential):
    """The mean over the image, 1x1 convolution, batch norm, ReLU, spread over the map again.

    Its batch norm sees one value per image and channel, so training needs at least two images in a batch
    unless that batch norm is frozen or synchronised over processes; a batch of one raises `ConfigError`.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), conv1x1(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        norm = self[2]
        if norm.training and x.shape[0] == 1 and not isinstance(norm, nn.SyncBatchNorm):
            raise ConfigError(
                "a batch of 1 image: the image pooling's batch norm needs at least 2 images a batch in training, of "
                "each part if batches are split; use a larger batch, fewer parts or freeze_batch_norm='all' (at later "
                "steps later_freeze_batch_norm)"
            )
        # Enlarging a single value bilinearly is that value everywhere.
        return super().forward(x).expand(-1, -1, *x.shape[-2:])


class ASPP(nn.Module):
    """1x1 convolution, three dilated 3x3 ones and image pooling, joined by a 1x1 projection and dropout.

    Every branch and the projection are convolution (no bias), batch norm, ReLU. [B, inputs, h, w] ->
    [B, outputs, h, w]. ``rates`` are the dilations: (6, 12, 18) at output stride 16, twice that at 8.
    """

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, int, int], dropout: float) -> None:
        super().__init__()
        branches: list[nn.Module] = [_conv_norm_relu(conv1x1(inputs, outputs))]
        branches += [_conv_norm_relu(conv3x3(inputs, outputs, dilation=rate)) for rate in rates]
        branches.append(ImagePooling(inputs, outputs))
        self.convs = nn.ModuleList(branches)
        self.project = nn.Sequential(
            conv1x1(len(branches) * outputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(dropout)
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([branch(x) for branch in self.convs], dim=1))


def _conv_norm_relu(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())
