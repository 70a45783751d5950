"""The mean feature of a class equals enlarging the map, masking and averaging."""

import pytest
import torch
from torch.nn import functional

from ciss_fast.memory.class_features import class_mean_features, class_mean_weights, enlargement_matrix


def by_definition(feature_map, label, value, align_corners):
    enlarged = functional.interpolate(
        feature_map.double()[None], label.shape, mode="bilinear", align_corners=align_corners
    )[0]
    return enlarged[:, label == value].mean(dim=1)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("size", "label_size"),
    [((4, 6), (32, 48)), ((5, 3), (33, 17)), ((1, 1), (7, 5)), ((8, 8), (8, 8)), ((9, 9), (4, 5))],
)
def test_equals_enlarging_and_averaging(size, label_size, align_corners):
    torch.manual_seed(0)
    feature_map = torch.randn(7, *size)
    label = torch.randint(0, 3, label_size)
    label[label == 1] = 255
    label[0, 0] = 1  # a class of one pixel
    weights = class_mean_weights(label, [2, 0, 1], size, align_corners)
    assert torch.allclose(weights.sum(dim=(1, 2)), torch.ones(3), atol=1e-6)
    for vector, value in zip(class_mean_features(feature_map, weights), (2, 0, 1), strict=True):
        assert (vector - by_definition(feature_map, label, value, align_corners)).abs().max() < 2e-6


def test_bf16_maps_are_averaged_in_float32():
    torch.manual_seed(0)
    feature_map, label = torch.randn(5, 4, 4).bfloat16(), torch.randint(0, 2, (64, 64))
    vector = class_mean_features(feature_map, class_mean_weights(label, [1], (4, 4)))[0]
    assert vector.dtype == torch.float32
    assert (vector - by_definition(feature_map, label, 1, True)).abs().max() < 1e-6


def test_the_matrix_of_an_enlargement():
    matrix = enlargement_matrix(3, 5)
    assert torch.equal(matrix @ torch.tensor([0.0, 2.0, 6.0]), torch.tensor([0.0, 1.0, 2.0, 4.0, 6.0]))
