"""``python -m benchmarks.record_logits``: trains a small network with DKD and keeps logits of it for benchmarks.

Two steps of six classes of the embedded data set, about four minutes on one core. Writes ``data/dkd_logits.npz``: see
`recorded_logits`. The network's training folder is given; a finished one is not trained again.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ciss_fast.atomic_files import atomic_write
from ciss_fast.cli import run_command
from ciss_fast.data.shapes import ShapesDataset
from ciss_fast.data.transforms import normalise
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint, load_weights
from ciss_fast.engine.recipes import load_recipe
from ciss_fast.engine.run import train
from ciss_fast.models import build_model

from .recorded_logits import FILE, neighbour_difference

IMAGES = 6
# Few iterations have to do: small batches, all rates alike, little distillation, so that all classes are learnt.
SETTINGS = {
    "method": "dkd",
    "task": "6-6",
    "data_option": {"image_size_px": 512, "train_images": 200, "val_images": 40},
    "crop_size": 192,
    "output_stride": 16,
    "batch_size": 8,
    "epochs_base": 14,
    "epochs_later": 12,
    "head_lr_multiplier": 1,
    "new_classifier_lr_multiplier": 1,
    "later_backbone_lr_multiplier": 1,
    "later_head_lr_multiplier": 1,
    "later_new_classifier_lr_multiplier": 10,
    "old_classifiers_lr_multiplier": 1,
    "backbone_batch_norm_momentum": 0.1,
    "pos_weight_base": 2,
    "pos_weight_later": 2,
    "loss_weight": {"kd": 1, "dkd_pos": 0, "dkd_neg": 0},
    "eval_batch_size": 1,
    "threads": 1,
}


def logits_after(run: Path, step: int, images: Tensor) -> Tensor:
    """Logits [B, C, h, w] of the network after a step of ``run``."""
    path = checkpoint_path(run, step)
    checkpoint = load_checkpoint(path)
    model = build_model(
        weights=None,
        classes_per_step=checkpoint.classes_per_step,
        auxiliary_classifier=True,
        **{name: checkpoint.config["model"][name] for name in ("backbone", "output_stride", "head_channels")},
    )
    load_weights(model, checkpoint, path)
    model.eval()
    with torch.no_grad():
        return torch.cat([model(image[None]).logits for image in images])


def record(run: Path, file: Path) -> None:
    """Train into the folder ``run`` and write ``file``."""
    train(load_recipe("demo").with_settings({**SETTINGS, "output": str(run)}))
    data = ShapesDataset(split="val", image_size_px=SETTINGS["data_option"]["image_size_px"])
    images = torch.stack([normalise(data.load(index)[0]) for index in range(IMAGES)])
    teacher, student = (logits_after(run, step, images) for step in (0, 1))
    about = (
        f"DKD's student and teacher on {IMAGES} validation images of the data set shapes; recipe demo with "
        + ", ".join(f"{name} {value}" for name, value in SETTINGS.items() if name != "method")
        + f"; mean |difference of neighbours| {neighbour_difference(student):.3f} (student, auxiliary included: "
        + f"auxiliary {neighbour_difference(student[:, :1]):.3f}, old {neighbour_difference(student[:, 1:7]):.3f}, "
        + f"new {neighbour_difference(student[:, 7:]):.3f}) and {neighbour_difference(teacher[:, 1:]):.3f} (teacher's "
        + f"classes); mean |student - teacher| {float((student[:, 1:7] - teacher[:, 1:]).abs().mean()):.3f}"
    )
    arrays = {"student": student.half().numpy(), "teacher": teacher.half().numpy(), "about": np.array(about)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(file, lambda opened: opened.write(buffer.getvalue()))
    print(f"{file}: {len(buffer.getvalue())} bytes; {about}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_logits", description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/record_logits"), help="results folder (%(default)s)")
    parser.add_argument("--file", type=Path, default=FILE, help="where the logits go")
    arguments = parser.parse_args()
    return run_command(lambda: record(arguments.run, arguments.file))


if __name__ == "__main__":
    sys.exit(main())
