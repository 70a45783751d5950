"""``ciss-fast convert``: checkpoints of the papers' code into ours; ours into safetensors and back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ciss_fast.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "convert", help="a checkpoint of DKD's or ALIFE's code into ours; ours into safetensors and back",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("checkpoint", metavar="FILE|RUN", help="of DKD, of ALIFE, or of ciss-fast")
    parser.add_argument("--output", required=True, metavar="FILE", help="ends in .pt or .safetensors")
    parser.add_argument("--dataset", metavar="voc|ade20k", help="of DKD's or ALIFE's model")
    parser.add_argument("--task", metavar="TASK", help="the same: its task, such as 15-1")
    parser.add_argument("--class-order", metavar="X[,X...]", help="the same: class ids or names in learning order")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert and say what it was."""
    from ciss_fast.engine.checkpoint import save_checkpoint
    from ciss_fast.engine.reference_checkpoints import CLASSES, convert_reference
    from ciss_fast.engine.safetensors_files import save_safetensors
    from ciss_fast.engine.trained_model import load_any_checkpoint

    output = Path(arguments.output)
    if output.suffix not in (".pt", ".safetensors"):
        raise ConfigError(f"--output: expected a name that ends in .pt or .safetensors, got {arguments.output!r}")
    if output.exists() and output.resolve() == Path(arguments.checkpoint).resolve():
        raise ConfigError(f"--output: expected another file than the one that is read, got {arguments.output!r}")
    given = [arguments.dataset, arguments.task]
    if any(given):
        if arguments.dataset not in CLASSES:
            raise ConfigError(f"--dataset: expected one of {', '.join(CLASSES)}, got {arguments.dataset!r}")
        if arguments.task is None:
            raise ConfigError("--task: expected the task of the model, such as 15-1, got none")
        order = arguments.class_order
        order = [int(part) if part.isdigit() else part for part in order.split(",")] if order else None
        checkpoint = convert_reference(arguments.checkpoint, arguments.dataset, arguments.task, order)
    else:
        checkpoint = load_any_checkpoint(arguments.checkpoint)
    (save_safetensors if output.suffix == ".safetensors" else save_checkpoint)(output, checkpoint)
    print(f"{checkpoint.method}, step {checkpoint.step}, {sum(checkpoint.classes_per_step)} channels: {output}")
