import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ciss_fast.engine.config import RunConfig
from ciss_fast.engine.evaluate import confusion_matrix, predict_images
from ciss_fast.engine.precision import Precision
from ciss_fast.errors import ConfigError
from ciss_fast.models import SegmentationOutput


class Averages(nn.Module):
    """Logits are local averages of the image at 1/4 of its size."""

    def forward(self, images):
        logits = F.adaptive_avg_pool2d(images, (images.shape[-2] // 4, images.shape[-1] // 4))
        return SegmentationOutput(logits, logits, weight=None)


CPU = Precision(torch.device("cpu"), None, channels_last=False)


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    result = []
    for count, height, width in ((2, 16, 24), (1, 20, 12), (3, 8, 8)):
        images = torch.randn(count, 3, height, width, generator=generator)
        label = torch.randint(0, 3, (count, height, width), generator=generator)
        label[torch.rand(label.shape, generator=generator) < 0.1] = 255
        result.append((images, label))
    return result


@pytest.mark.parametrize("align_corners", [False, True])
def test_counts_at_each_images_own_size(batches, align_corners):
    expected = np.zeros((3, 3), dtype=np.int64)
    for images, label in batches:
        logits = Averages()(images).logits.double()
        prediction = F.interpolate(logits, size=label.shape[-2:], mode="bilinear", align_corners=align_corners).argmax(
            1
        )
        valid = label != 255
        np.add.at(expected, (label[valid].numpy(), prediction[valid].numpy()), 1)
    counts = confusion_matrix(Averages(), batches, 3, CPU, align_corners=align_corners)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)


def test_model_is_tested_in_evaluation_mode(batches):
    model = Averages().train()
    confusion_matrix(model, batches, 3, CPU, align_corners=True)
    assert not model.training


@pytest.mark.parametrize("align_corners", [False, True])
def test_predictions_have_the_size_of_their_images(batches, align_corners):
    images = [images[0] for images, _ in batches]
    predictions = predict_images(Averages(), images, CPU, align_corners=align_corners)
    for image, prediction in zip(images, predictions, strict=True):
        logits = Averages()(image[None].double()).logits
        enlarged = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=align_corners)
        np.testing.assert_array_equal(prediction, enlarged.argmax(1)[0].numpy())


def test_precision_of_the_network():
    linear = nn.Conv2d(3, 2, 1)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        precision = Precision.from_config(RunConfig(precision=name, device="cpu"))
        assert precision.loss_scaler().is_enabled() == (name == "fp16")
        images = precision.place_images(torch.zeros(2, 3, 4, 4))
        assert images.is_contiguous(memory_format=torch.channels_last)
        with precision.autocast():
            assert linear(images).dtype == dtype
    assert linear.weight.dtype == torch.float32


def test_device_that_is_not_there():
    with pytest.raises(ConfigError, match="--device: expected one of the .* CUDA devices here, got 'cuda:99'"):
        Precision.from_config(RunConfig(device="cuda:99"))
