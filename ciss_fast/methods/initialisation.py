"""How a new step's classifier starts."""

from __future__ import annotations

import math

import torch

from ..models import SegmentationModel


@torch.no_grad()
def start_from_background(model: SegmentationModel) -> None:
    """MiB's initialisation of the newest classifier (Cermelli et al. 2020, equations 11 and 12).

    With n new classes: every new weight is the background's weight; every new bias, and the background's own,
    is the old background bias minus log(n + 1). So background and new classes start by sharing the
    probability that the old model gives to background, and no old class's probability changes. Background is
    channel 0.
    """
    background, new = model.classifiers[0], model.classifiers[-1]
    bias = background.bias[0] - math.log(new.out_channels + 1)
    new.weight.copy_(background.weight[:1].expand_as(new.weight))
    new.bias.copy_(bias.expand_as(new.bias))
    background.bias[0] = bias


@torch.no_grad()
def start_from_auxiliary(model: SegmentationModel) -> None:
    """DKD's initialisation of the newest classifier (Baek et al. 2022).

    Every new class starts as a copy, weight and bias, of the auxiliary classifier, which has learnt the
    negatives of the steps before. Nothing else changes.
    """
    auxiliary, new = model.auxiliary, model.classifiers[-1]
    new.weight.copy_(auxiliary.weight.expand_as(new.weight))
    new.bias.copy_(auxiliary.bias.expand_as(new.bias))
