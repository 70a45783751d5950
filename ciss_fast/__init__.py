"""Class-incremental semantic segmentation: fused losses, a trainer for the whole protocol, benchmarks."""

from .losses import SigmoidLoss, SoftmaxLoss
from .ops.cayley_rotate import cayley_rotate
from .ops.label_map import confusion, predict
from .ops.prototypes import PrototypeAccumulator, prototypes
from .ops.reasoning_loss import reasoning_loss, reasoning_scores
from .ops.rotation_loss import rotation_loss
from .ops.sigmoid_loss import sigmoid_loss
from .ops.softmax_loss import softmax_loss

__version__ = "0.1.0"
__all__ = [
    "PrototypeAccumulator",
    "SigmoidLoss",
    "SoftmaxLoss",
    "cayley_rotate",
    "confusion",
    "predict",
    "prototypes",
    "reasoning_loss",
    "reasoning_scores",
    "rotation_loss",
    "sigmoid_loss",
    "softmax_loss",
    "__version__",
]
