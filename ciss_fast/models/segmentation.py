"""DeepLab-v3 with one classifier per incremental step."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .aspp import ASPP
from .blocks import conv3x3, initialise
from .mobilenet import mobilenet_v2
from .resnet import resnet18, resnet50, resnet101
from .weights import load_backbone_weights

BACKBONES = {"resnet18": resnet18, "resnet50": resnet50, "resnet101": resnet101, "mobilenet_v2": mobilenet_v2}
ASPP_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


class SegmentationOutput(NamedTuple):
    """What the network returns; maps at its own resolution (1/16 or 1/8 of the image).

    logits: [B, C, h, w], channels in the order the classes were learnt.
    features: [B, head_channels, h, w], what the classifiers read.
    weight: [C, head_channels], the classifiers' weights, one row per channel of the logits.
    """

    logits: Tensor
    features: Tensor
    weight: Tensor


class SegmentationModel(nn.Module):
    """Backbone, ASPP, head (3x3 convolution, batch norm, ReLU) and one 1x1 classifier (with bias) per step.

    Computes what the reference networks of ALIFE (Oh et al. 2022) and DKD (Baek et al. 2022) compute up to
    the enlargement of the logits, which belongs to the loss and to the prediction here. Parameters are named
    like torchvision's (``backbone.layer1.0.conv1``, ``aspp.convs.0.0``, ``aspp.project.0``). The references
    differ from it in names (ALIFE: ``decoder.last_conv`` is ``head``, ``decoder.classifier`` is
    ``classifiers``; DKD: ``aspp.last_conv``, and ``cls`` is ``auxiliary`` and ``classifiers``), and ALIFE dilates
    one convolution more (``dilate_first_block`` of `build_model`).

    The softmax family has a background channel, channel 0, in its first classifier. The sigmoid family (DKD)
    has none: there the auxiliary classifier, ``auxiliary``, gives channel 0, so that every other channel means
    the same in both. It reads detached features: what is learnt from its logit changes nothing but its own
    weight and bias.
    """

    def __init__(
        self,
        backbone: nn.Module,
        aspp: ASPP,
        head: nn.Module,
        head_channels: int,
        auxiliary_classifier: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = aspp
        self.head = head
        self.head_channels = head_channels
        self.auxiliary = self._classifier(1) if auxiliary_classifier else None
        self.classifiers = nn.ModuleList()

    @property
    def classes_per_step(self) -> list[int]:
        """Channels that every step brought, e.g. [16, 5] for VOC 15-5 after step 1.

        Channel 0 counts in the first step, be it the background's or the auxiliary classifier's.
        """
        counts = [classifier.out_channels for classifier in self.classifiers]
        if self.auxiliary is not None and counts:
            counts[0] += 1
        return counts

    @property
    def num_classes(self) -> int:
        """Number of logit channels."""
        return sum(self.classes_per_step)

    def add_classifier(self, num_classes: int) -> nn.Conv2d:
        """Append the 1x1 classifier of a step with ``num_classes`` channels and return it.

        It starts as PyTorch has it (what else it starts from is the method's decision), on the device and in
        the dtype of the others. Where there is an auxiliary classifier the first step's has one output less:
        channel 0 is there.
        """
        if num_classes < 1:
            raise ConfigError(f"num_classes: a classifier needs at least 1 class, got {num_classes}")
        if self.auxiliary is not None and not self.classifiers:
            if num_classes == 1:
                raise ConfigError("num_classes: the first step needs at least 1 class beside channel 0, got 0")
            num_classes -= 1
        self.classifiers.append(self._classifier(num_classes))
        return self.classifiers[-1]

    def _classifier(self, outputs: int) -> nn.Conv2d:
        reference = next(self.head.parameters())
        return nn.Conv2d(self.head_channels, outputs, 1, device=reference.device, dtype=reference.dtype)

    def frozen_copy(self) -> SegmentationModel:
        """A copy to serve as teacher: evaluation mode, no gradients. Make it before the next step."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def extract(self, images: Tensor) -> Tensor:
        """What the classifiers read: images [B, 3, H, W], ImageNet-normalised -> features [B, head_channels, h, w].

        h = ceil(H / output stride).
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected shape [B, 3, H, W], got {list(images.shape)}")
        return self.head(self.aspp(self.backbone(images)))

    def forward(self, images: Tensor) -> SegmentationOutput:
        """images [B, 3, H, W], ImageNet-normalised -> `SegmentationOutput`, h = ceil(H / output stride)."""
        return self.classify(self.extract(images))

    def classify(self, features: Tensor) -> SegmentationOutput:
        """The classifiers on features [B, head_channels, h, w] of `extract`."""
        logits = [classifier(features) for classifier in self.classifiers]
        weights = [classifier.weight for classifier in self.classifiers]
        if self.auxiliary is not None:
            logits.insert(0, self.auxiliary(features.detach()))
            weights.insert(0, self.auxiliary.weight)
        return SegmentationOutput(torch.cat(logits, dim=1), features, torch.cat(weights).flatten(1))


def build_model(
    backbone: str = "resnet101",
    output_stride: int = 16,
    classes_per_step: Sequence[int] = (21,),
    dropout: float = 0.5,
    head_channels: int = 256,
    dilate_first_block: bool = False,
    weights: str | os.PathLike[str] | None = None,
    auxiliary_classifier: bool = False,
) -> SegmentationModel:
    """Build a DeepLab-v3 network.

    backbone: "resnet101", "resnet50", "resnet18" or "mobilenet_v2".
    output_stride: 16 or 8; the ASPP's rates are 6/12/18 or 12/24/36.
    classes_per_step: channels of each step, channel 0 counted in the first ([16] at 15-5's base step).
    dropout: rate after the ASPP projection (ALIFE 0.5, DKD 0.1).
    head_channels: channels of ASPP, head and features.
    dilate_first_block: the first block of a dilated stage takes the stage's dilation too, as in ALIFE's
        reference network; by default it keeps the one before, as in torchvision's and DKD's.
    weights: the backbone's: None (random, Kaiming), "imagenet" (download) or the path of a state dict with
        torchvision's key names. Everything else starts at random.
    auxiliary_classifier: channel 0 is that of an auxiliary classifier, as in DKD, and not the background's.

    Raises `ConfigError` for a bad argument and `CheckpointError` for weights that are missing or do not fit.
    """
    if backbone not in BACKBONES:
        raise ConfigError(f"backbone: unknown name {backbone!r}, known: {', '.join(sorted(BACKBONES))}")
    if output_stride not in ASPP_RATES:
        raise ConfigError(f"output_stride: expected 8 or 16, got {output_stride}")
    if not classes_per_step:
        raise ConfigError("classes_per_step: expected at least one step, got an empty list")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"dropout: expected a rate in [0, 1), got {dropout}")
    if head_channels < 1:
        raise ConfigError(f"head_channels: expected at least 1, got {head_channels}")
    network = BACKBONES[backbone](output_stride, dilate_first_block)
    if weights is not None:
        load_backbone_weights(network, backbone, weights)
    aspp = ASPP(network.out_channels, head_channels, ASPP_RATES[output_stride], dropout)
    head = nn.Sequential(conv3x3(head_channels, head_channels), nn.BatchNorm2d(head_channels), nn.ReLU())
    initialise(head)
    model = SegmentationModel(network, aspp, head, head_channels, auxiliary_classifier)
    for num_classes in classes_per_step:
        model.add_classifier(num_classes)
    return model
