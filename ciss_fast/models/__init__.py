"""Networks: DeepLab-v3 on ResNet or MobileNetV2, one classifier per step."""

from .segmentation import BACKBONES, SegmentationModel, SegmentationOutput, build_model

__all__ = ["BACKBONES", "SegmentationModel", "SegmentationOutput", "build_model"]
