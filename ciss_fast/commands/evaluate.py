"""``ciss-fast eval``: scores of a trained model, or of all steps of a run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("eval", help="score a trained model, or all steps of a run", allow_abbrev=False)
    parser.add_argument("model", metavar="RUN|MODEL", help="results folder (all its steps), .pt or .safetensors file")
    parser.add_argument("--data-root", metavar="FOLDER", help="of the data set; by default where it was in training")
    parser.add_argument("--eval-crop", metavar="N", help="shorter side and centre crop; none: own size")
    parser.add_argument("--unseen", metavar="background|ignore", help="what classes of later steps count as")
    parser.add_argument(
        "--ignore-background", action=argparse.BooleanOptionalAction, help="whether pixels of class 0 are left out"
    )
    parser.add_argument("--eval-batch-size", metavar="N", help="images of one size scored together")
    parser.add_argument("--workers", metavar="N", help="processes that load images")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 or auto")
    parser.add_argument("--precision", metavar="NAME", help="as for train")
    parser.add_argument("--output", metavar="FOLDER", help="write scores.csv and class_iou.csv there")
    parser.add_argument("--quiet", action="store_true", help="print the table of scores only")
    parser.set_defaults(run=run)


_SETTINGS = (
    "data_root", "eval_crop", "unseen", "ignore_background", "eval_batch_size", "workers", "device", "precision"
)  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Score on the validation images as after training; what is left out is as in training."""
    from ciss_fast.atomic_files import atomic_write_text
    from ciss_fast.engine.progress import Reporter
    from ciss_fast.engine.results import class_iou_csv, scores_csv
    from ciss_fast.engine.scoring import score_checkpoint
    from ciss_fast.engine.tables import percent, text_table
    from ciss_fast.engine.trained_model import find_checkpoint, load_any_checkpoint

    given = {name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None}
    reporter, entries = Reporter(quiet=arguments.quiet), []
    last = find_checkpoint(arguments.model)
    paths = [last]
    if Path(arguments.model).is_dir():
        count = int(last.stem.removeprefix("step_")) + 1
        paths = [last.with_name(f"step_{step}.pt") for step in range(count)]
    for path in paths:
        start = time.monotonic()
        entry = score_checkpoint(load_any_checkpoint(path), path, given, reporter)
        entries.append({**entry, "seconds_testing": time.monotonic() - start})
    names = ("miou_base", "miou_new", "miou_all", "hiou", "pixel_accuracy", "miou_all_foreground")
    rows = [
        [str(entry["step"]), str(entry["test_images"]), *(percent(entry[name]) for name in names)] for entry in entries
    ]
    header = ["step", "images", "base mIoU", "new mIoU", "all mIoU", "hIoU", "pixel acc.", "without background"]
    reporter.result(text_table(header, rows))
    if arguments.output is not None:
        atomic_write_text(Path(arguments.output) / "scores.csv", scores_csv(entries))
        atomic_write_text(Path(arguments.output) / "class_iou.csv", class_iou_csv(entries))
