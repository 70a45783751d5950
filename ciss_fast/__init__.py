"""Class-incremental semantic segmentation: fused losses, a trainer for the whole protocol, benchmarks."""

from .losses import SoftmaxLoss
from .ops.label_map import confusion, predict
from .ops.softmax_loss import softmax_loss

__version__ = "0.1.0"
__all__ = ["SoftmaxLoss", "confusion", "predict", "softmax_loss", "__version__"]
