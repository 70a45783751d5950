"""Which classes an image counts for: its labels and, from the second step on, confident predictions."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ciss_fast.memory.image_classes import image_classes
from ciss_fast.models import SegmentationOutput, build_model

ORDER = (0, 7, 3, 9, 1)


class GivenLogits(nn.Module):
    """A network whose logits are the images."""

    def __init__(self):
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return SegmentationOutput(images, None, None)


def batch(seed, channels=5):
    """Smooth random logits, few of them high, and labels; the first image's are all unlabelled or ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, channels, 4, 5, generator=generator) - 4
    values = torch.tensor([0, 0, 0, 4, 255])
    label = values[torch.randint(len(values), (3, 32, 40), generator=generator)]
    label[0] = torch.where(label[0] == 4, 0, label[0])
    return logits, label


def by_definition(logits, label, threshold, align_corners):
    """Full-resolution scores, the highest class, and the pixels that take it."""
    full = functional.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=align_corners)
    score, best = torch.sigmoid(full[:, 1:]).max(dim=1)
    filled = torch.where((label == 0) & (score >= threshold), best + 1, label)
    return [
        tuple(sorted(ORDER[channel] for channel in one.unique().tolist() if channel not in (0, 255)))
        for one in filled
    ]


def test_labels_alone_at_the_first_step():
    label = torch.zeros(3, 6, 6, dtype=torch.int64)
    label[0, 0, 0], label[0, 1, 1], label[1] = 4, 1, 255
    assert image_classes([(torch.empty(3, 3, 6, 6), label)], ORDER) == [(1, 7), (), ()]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.9, 0.99])
def test_unlabelled_pixels_take_confident_predictions(threshold, align_corners):
    batches = [batch(0), batch(1)]
    model = GivenLogits().train()
    ours = image_classes(batches, ORDER, model, threshold=threshold, align_corners=align_corners)
    assert len(set(ours)) > 1
    assert ours == [
        one for logits, label in batches for one in by_definition(logits, label, threshold, align_corners)
    ]
    assert not model.training


def test_the_published_threshold_is_the_default():
    logits, label = batch(2)
    default = image_classes([(logits, label)], ORDER, GivenLogits())
    assert default == by_definition(logits, label, 0.9, False)
    assert default != by_definition(logits, label, 0.3, False)


def test_just_below_and_just_above_the_threshold():
    """Score 0.9 is logit 2.1972; the auxiliary channel, however high, is no class."""
    label = torch.zeros(1, 8, 8, dtype=torch.int64)
    logits = torch.full((1, len(ORDER), 2, 2), -5.0)
    logits[:, 0] = 50.0
    for value, expected in ((2.1971, ()), (2.1973, (9,))):
        logits[:, 3] = value
        assert image_classes([(logits, label)], ORDER, GivenLogits()) == [expected]


def test_labelled_and_ignored_pixels_keep_their_label():
    logits = torch.full((2, len(ORDER), 2, 2), -5.0)
    logits[:, 3] = 9.0
    label = torch.stack([torch.full((8, 8), 255), torch.full((8, 8), 2)])
    assert image_classes([(logits, label)], ORDER, GivenLogits()) == [(), (3,)]


@pytest.mark.parametrize("autocast", [False, True])
def test_with_a_network(autocast):
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", 16, [4, 1], head_channels=16, auxiliary_classifier=True)
    with torch.no_grad():
        model.classifiers[0].bias[1] = 60.0
    images, label = torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert image_classes([(images, label)], ORDER, model) == [(3,), (3,)]


def test_what_does_not_fit():
    logits, label = batch(0, channels=4)
    with pytest.raises(ValueError, match="^model: expected 5 channels, got 4$"):
        image_classes([(logits, label)], ORDER, GivenLogits())
    with pytest.raises(ValueError, match="^label: expected 0 to 2 or 255, got 4$"):
        image_classes([(logits, label)], ORDER[:3])
    for threshold in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="^threshold: expected a number between 0 and 1, got"):
            image_classes([(logits, label)], ORDER, threshold=threshold)
