"""The results folder of a run: what is in it and how it is read and written.

config.json               the effective configuration
metrics.json              scores, per-class IoU, loss log, times and memory of every finished step
scores.csv                the scores of metrics.json, a row a step
class_iou.csv             the IoU of every class (a row each) after every step
checkpoints/step_N.pt     the model after step N
checkpoints/in_progress.pt  a step under way, for going on after an interruption
checkpoints/in_progress_before.pt  the save before that one
memory/                   what methods with a memory keep for later steps
evaluation/step_N.npz     confusion matrix and predicted preview images after step N
evaluation/previews.npz   the preview images and their ground truth
tensorboard/              loss terms, learning rate and scores
wandb_id.txt, wandb/      with --wandb: under which id a run goes on; what has not been sent yet
curves.png, predictions.png
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ciss_fast.atomic_files import atomic_write, atomic_write_text, remove_partial_files
from ciss_fast.engine.config import Config, first_difference
from ciss_fast.engine.metrics import MEANS_OVER_STEPS
from ciss_fast.engine.tables import csv_text, percent, text_table
from ciss_fast.errors import CheckpointError, ConfigError

METRICS_FORMAT = 2
METRICS_OF_RUN = (
    "dataset", "class_names", "task", "setting", "method", "seed", "num_steps", "steps", "miou_matrix",
    "forgetting", "mean_forgetting", "mean_over_steps", "mean_miou_all",
)  # fmt: skip
METRICS_OF_STEP = (
    "step", "new_classes", "training_images", "test_images", "iterations", "seconds_training", "seconds_testing",
    "peak_memory_bytes", *MEANS_OVER_STEPS, "miou_by_step", "iou", "loss_log",
)  # fmt: skip


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

    def check(self, config: Config) -> None:
        """Raise `ConfigError` if the folder holds a run of another configuration (naming the first setting that
        differs); a run that has saved nothing yet gives way.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--output: expected a folder, got the file {self.path}")
        started = self.metrics_path.exists() or any(self.path.glob("checkpoints/*.pt"))
        if self.config_path.exists() and started:
            difference = first_difference(self.read_config(), config, ("base", "later"))
            if difference is not None:
                raise ConfigError(f"--output: {self.path} holds a run of another configuration: {difference}")

    def claim(self, config: Config) -> None:
        """Make the folder this run's, or find that it already is (`check`). What a killed process was about to write is
        removed.

        Raises `ConfigError` if it is another run's or cannot be written.
        """
        self.check(config)
        try:
            remove_partial_files(self.path)
            atomic_write_text(self.config_path, json.dumps(config.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise ConfigError(f"--output: cannot write to {self.path}: {error.strerror or error}") from None

    def read_config(self) -> dict[str, Any]:
        """The stored configuration. Raises `CheckpointError` if it is missing or damaged."""
        config = _read_json(self.config_path)
        for section, values in config.items():
            if not isinstance(values, dict):
                raise CheckpointError(f"{self.config_path}: expected {section} to be an object, got {values!r}")
        return config

    def read_metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``. Raises `CheckpointError` if it is missing or damaged."""
        metrics = _read_json(self.metrics_path)
        if metrics.get("format") != METRICS_FORMAT or not isinstance(metrics.get("steps"), list):
            raise CheckpointError(
                f"{self.metrics_path}: expected metrics of format {METRICS_FORMAT}, got {metrics.get('format')!r}; "
                "without this file the training command scores the checkpoints again"
            )
        missing = [name for name in METRICS_OF_RUN if name not in metrics]
        for number, entry in enumerate(metrics["steps"]):
            if not isinstance(entry, dict):
                raise CheckpointError(f"{self.metrics_path}: expected an object for each step, got {entry!r}")
            missing += [f"{name} (step entry {number})" for name in METRICS_OF_STEP if name not in entry]
        if missing:
            raise CheckpointError(f"{self.metrics_path}: expected an entry {missing[0]}, there is none")
        return metrics

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json`` and the tables made of it."""
        atomic_write_text(self.metrics_path, json.dumps({**metrics, "format": METRICS_FORMAT}, indent=1) + "\n")
        atomic_write_text(self.path / "scores.csv", scores_csv(metrics["steps"]))
        atomic_write_text(self.path / "class_iou.csv", class_iou_csv(metrics["steps"]))

    def write_evaluation(self, step: int, confusion: np.ndarray, previews: list[np.ndarray]) -> None:
        arrays = {"confusion": confusion, **{f"preview_{i}": image for i, image in enumerate(previews)}}
        atomic_write(self.evaluation_path(step), lambda file: np.savez_compressed(file, **arrays))

    def has_evaluation(self, step: int) -> bool:
        """Whether the evaluation of a step is there and can be read."""
        try:
            with np.load(self.evaluation_path(step)) as arrays:
                return all(arrays[name] is not None for name in arrays.files) and "confusion" in arrays.files
        # A damaged archive surfaces as almost anything; whatever it is, the cure is to test again.
        except Exception:
            return False

    def read_confusion(self, step: int) -> np.ndarray | None:
        """The confusion matrix over the test images of a step, in channel order; None if it is not there.

        Raises `CheckpointError` if it cannot be read.
        """
        if not self.evaluation_path(step).exists():
            return None
        with _archive(self.evaluation_path(step)) as arrays:
            return arrays["confusion"]

    def read_previews(self, step: int) -> list[np.ndarray]:
        """The predicted class ids of the preview images after a step, each [H, W]."""
        return _read_arrays(self.evaluation_path(step), "preview")

    @property
    def previews_path(self) -> Path:
        return self.path / "evaluation" / "previews.npz"

    def write_preview_images(self, images: list[np.ndarray], labels: list[np.ndarray]) -> None:
        """Keep the preview images (uint8 [H, W, 3]) and their ground truth (class ids [H, W], 255 ignored)."""
        arrays = {f"image_{i}": image for i, image in enumerate(images)}
        arrays |= {f"label_{i}": label for i, label in enumerate(labels)}
        atomic_write(self.previews_path, lambda file: np.savez_compressed(file, **arrays))

    def read_preview_images(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """What `write_preview_images` has written. Raises `CheckpointError` if it is missing or damaged."""
        return _read_arrays(self.previews_path, "image"), _read_arrays(self.previews_path, "label")


def _read_arrays(path: Path, name: str) -> list[np.ndarray]:
    with _archive(path) as arrays:
        return [arrays[f"{name}_{i}"] for i in range(sum(file.startswith(f"{name}_") for file in arrays.files))]


@contextmanager
def _archive(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    try:
        with np.load(path) as arrays:
            yield arrays
    except Exception as error:  # a damaged archive surfaces as almost anything
        raise CheckpointError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


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


def scores_csv(steps: list[dict[str, Any]]) -> str:
    """The steps' scores as CSV, fractions from 0 to 1; nothing where there is no score."""
    groups = max((len(entry["miou_by_step"]) for entry in steps), default=0)
    names = ("training_images", "test_images", "iterations", "seconds_training", "seconds_testing", "peak_memory_bytes")
    header = ["step", "new_classes", *names, *MEANS_OVER_STEPS, *(f"miou_step_{group}" for group in range(groups))]
    rows = [
        [
            entry["step"],
            " ".join(name.replace(" ", "_") for name in entry["new_classes"]),
            *(entry[name] for name in (*names, *MEANS_OVER_STEPS)),
            *entry["miou_by_step"],
            *[None] * (groups - len(entry["miou_by_step"])),
        ]
        for entry in steps
    ]
    return csv_text(header, rows)


def class_iou_csv(steps: list[dict[str, Any]]) -> str:
    """IoU by class (rows, in learning order) and step (columns) as CSV; nothing where there is no score."""
    classes = list(steps[-1]["iou"]) if steps else []
    learnt = {name: entry["step"] for entry in reversed(steps) for name in entry["iou"]}
    rows = [[name, learnt[name], *(entry["iou"].get(name) for entry in steps)] for name in classes]
    return csv_text(["class", "learnt_at_step", *(f"after_step_{entry['step']}" for entry in steps)], rows)
