"""The network of a configuration, and a trained model from a file or a run's folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from ciss_fast.engine.checkpoint import StepCheckpoint, load_checkpoint, load_weights
from ciss_fast.engine.config import Config, ModelConfig
from ciss_fast.engine.safetensors_files import load_safetensors
from ciss_fast.errors import CheckpointError
from ciss_fast.methods import get_method
from ciss_fast.models import SegmentationModel, build_model


def build_network(
    settings: ModelConfig, classes_per_step: Sequence[int], *, auxiliary_classifier: bool, pretrained: bool
) -> SegmentationModel:
    """The configured network; ``pretrained``: with the configured weights of the backbone, else without any."""
    return build_model(
        backbone=settings.backbone,
        output_stride=settings.output_stride,
        classes_per_step=classes_per_step,
        dropout=settings.dropout if settings.dropout is not None else 0.0,
        head_channels=settings.head_channels,
        dilate_first_block=settings.dilate_first_block,
        weights=settings.weights if pretrained else None,
        auxiliary_classifier=auxiliary_classifier,
    )


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that ``path`` names: itself, or in a run's folder that of the last finished step.

    Raises `CheckpointError` for a folder without one.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    steps = {
        int(match[1]): file
        for file in path.glob("checkpoints/step_*.pt")
        if (match := re.fullmatch(r"step_([0-9]+)\.pt", file.name))
    }
    if not steps:
        raise CheckpointError(f"{path}: expected a run with a finished step, there is no checkpoints/step_N.pt")
    return steps[max(steps)]


def load_any_checkpoint(path: str | Path) -> StepCheckpoint:
    """A finished step's checkpoint: a ``.pt`` file, a ``.safetensors`` file, or a run's last.

    Raises `CheckpointError` naming the file.
    """
    path = find_checkpoint(path)
    checkpoint = load_safetensors(path) if path.suffix == ".safetensors" else load_checkpoint(path)
    if checkpoint.progress is not None:
        raise CheckpointError(f"{path}: expected a finished step, got one under way")
    return checkpoint


def model_of(checkpoint: StepCheckpoint, path: str | Path) -> tuple[SegmentationModel, Config]:
    """The checkpoint's model on the CPU, and its configuration. ``path`` is for messages.

    Raises `CheckpointError` if the weights do not fit the configuration in it, `ConfigError` for one that this version
    does not know.
    """
    config = Config.from_dict(checkpoint.config, str(path))
    auxiliary = get_method(checkpoint.method).uses_auxiliary_classifier
    with torch.device("cpu"):
        model = build_network(
            config.model, checkpoint.classes_per_step, auxiliary_classifier=auxiliary, pretrained=False
        )
    load_weights(model, checkpoint, path)
    return model.eval(), config
