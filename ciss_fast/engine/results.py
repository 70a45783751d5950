"""The results folder of a run: what is in it and how it is read and written.

config.json               the effective configuration
metrics.json              scores, per-class IoU, loss log and times of every finished step
checkpoints/step_N.pt     the model after step N
evaluation/step_N.npz     confusion matrix and predicted preview images after step N
tensorboard/              loss terms, learning rate and scores
curves.png, predictions.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ciss_fast.atomic_files import atomic_write, atomic_write_text
from ciss_fast.engine.config import Config, first_difference
from ciss_fast.engine.tables import percent, text_table
from ciss_fast.errors import CheckpointError, ConfigError

METRICS_FORMAT = 1


class ResultsFolder:
    """One run's folder. Every file in it is written in one step."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.json"

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    def evaluation_path(self, step: int) -> Path:
        return self.path / "evaluation" / f"step_{step}.npz"

    def claim(self, config: Config) -> None:
        """Make the folder this run's, or find that it already is.

        Raises `ConfigError` if it holds a run of another configuration (naming the first setting that
        differs), or if it cannot be written.
        """
        stored = self.read_config() if self.config_path.exists() else None
        if stored is None and self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--output: expected a folder, got the file {self.path}")
        if stored is not None:
            difference = first_difference(stored, config, ("base", "later"))
            if difference is not None:
                raise ConfigError(f"--output: {self.path} holds a run of another configuration: {difference}")
        try:
            atomic_write_text(self.config_path, json.dumps(config.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"--output: cannot write to {self.path}: {error.strerror or error}") from None

    def read_config(self) -> dict[str, Any]:
        """The stored configuration. Raises `CheckpointError` if it is missing or damaged."""
        return _read_json(self.config_path)

    def read_metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``. Raises `CheckpointError` if it is missing or damaged."""
        metrics = _read_json(self.metrics_path)
        if metrics.get("format") != METRICS_FORMAT or not isinstance(metrics.get("steps"), list):
            raise CheckpointError(
                f"{self.metrics_path}: expected metrics of format {METRICS_FORMAT}, got {metrics.get('format')!r}"
            )
        return metrics

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        atomic_write_text(self.metrics_path, json.dumps({"format": METRICS_FORMAT, **metrics}, indent=1) + "\n")

    def write_evaluation(self, step: int, confusion: np.ndarray, previews: list[np.ndarray]) -> None:
        arrays = {"confusion": confusion, **{f"preview_{i}": image for i, image in enumerate(previews)}}
        atomic_write(self.evaluation_path(step), lambda file: np.savez_compressed(file, **arrays))

    def read_previews(self, step: int) -> list[np.ndarray]:
        """The predicted class ids of the preview images after a step, each [H, W]."""
        with np.load(self.evaluation_path(step)) as arrays:
            count = sum(name.startswith("preview_") for name in arrays.files)
            return [arrays[f"preview_{i}"] for i in range(count)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: expected the file of a run, there is none") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def steps_table(metrics: dict[str, Any]) -> str:
    """Scores after every step of a run, in percent."""
    rows = [
        [
            f"{entry['step']} (+{len(entry['new_classes'])})",
            *(percent(entry[name]) for name in ("miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy")),
            f"{entry['seconds_training']:.0f}",
        ]
        for entry in metrics["steps"]
    ]
    return text_table(["step", "base mIoU", "new mIoU", "all mIoU", "hIoU", "pixel acc.", "train s"], rows)
