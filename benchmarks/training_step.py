"""``python -m benchmarks.training_step``: the loss's share of a training step of ALIFE.

A step is the teacher's forward pass, the student's, the loss, the backward pass and the optimiser (SGD with momentum).
The loss alone, forward and backward from the network's logits, is timed in turn with whole steps, and so are a step and
a loss with plain PyTorch (`eager_softmax.alife`) and a step whose loss costs next to nothing (the logits' mean). By
default ADE20K 100-50 with ResNet-101, 12 images of 512 x 512 and bfloat16 layers. The share is the loss's time over the
step's; the difference between a step and one without a loss, which also counts what the loss keeps from overlapping, is
reported beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ciss_fast
from ciss_fast.errors import CissFastError
from ciss_fast.models import BACKBONES, build_model

from . import eager_softmax, label_maps, machine, report
from .__main__ import device_named
from .measure import Timing, paired_times

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def our_loss(student: Tensor, teacher: Tensor, label: Tensor, backend: str | None = None) -> Tensor:
    """CE + 3 ALI + KD as the trainer asks for it."""
    return ciss_fast.softmax_loss(
        student, teacher, label, ce=1.0, ali=3.0, kd=1.0, align_corners=True, backend=backend
    )[0]


def eager_loss(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """The same in plain PyTorch."""
    return eager_softmax.alife(student, teacher, label, True)


def no_loss(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """Gives the network a gradient and costs next to nothing."""
    return student.float().mean()


class TrainingStep:
    """Networks, optimiser and one batch on a device."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        model = build_model(options.backbone, 16, [options.old_classes, options.new_classes])
        teacher = build_model(options.backbone, 16, [options.old_classes]).frozen_copy()
        self.student, self.teacher = (
            network.to(device, memory_format=torch.channels_last) for network in (model.train(), teacher)
        )
        self.optimiser = torch.optim.SGD(self.student.parameters(), lr=1e-3, momentum=0.9)
        images = torch.randn(options.images, 3, options.size, options.size)
        self.images = images.to(device, memory_format=torch.channels_last)
        shown = range(options.old_classes, options.old_classes + options.new_classes)
        self.label = label_maps.blobs(options.images, (options.size, options.size), shown).to(device)
        self.autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=not options.float32)

    def logits(self) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's, as the loss gets them."""
        with self.autocast():
            with torch.no_grad():
                teacher = self.teacher(self.images).logits
            return self.student(self.images).logits, teacher

    def step(self, loss: LossFunction) -> None:
        """All of one iteration."""
        self.optimiser.zero_grad(set_to_none=True)
        student, teacher = self.logits()
        loss(student, teacher, self.label).backward()
        self.optimiser.step()

    def loss_alone(self, loss: LossFunction) -> Callable[[], Tensor]:
        """The loss of one batch's logits and its gradient on them."""
        student, teacher = (one.detach() for one in self.logits())
        student.requires_grad_()

        def call() -> Tensor:
            (gradient,) = torch.autograd.grad(loss(student, teacher, self.label), student)
            return gradient

        return call


def measure(options: argparse.Namespace, device: torch.device) -> Timing:
    """Time steps and losses in turn."""
    work = TrainingStep(options, device)
    losses = {"ours": partial(our_loss, backend=options.backend), "eager": eager_loss}
    candidates: dict[str, Callable[[], Any]] = {"step, no loss": partial(work.step, no_loss)}
    for name, loss in losses.items():
        candidates[f"step, {name}"] = partial(work.step, loss)
        candidates[f"loss, {name}"] = work.loss_alone(loss)
    return paired_times(candidates, options.rounds, options.seconds, time_calls=machine.timer(device))


def results(timing: Timing) -> dict[str, Any]:
    """Milliseconds and shares, as they go into the JSON file."""
    times = {name: 1e3 * timing.median(name) for name in timing.typical}
    return {
        "milliseconds": times,
        "loss_share_of_step": {name: times[f"loss, {name}"] / times[f"step, {name}"] for name in ("ours", "eager")},
        "step_over_step_without_loss": {
            name: timing.ratio(f"step, {name}", "step, no loss") for name in ("ours", "eager")
        },
    }


def text(found: dict[str, Any]) -> str:
    """The results in a few lines."""
    lines = [f"{name:<16}{value:>12.3f} ms" for name, value in found["milliseconds"].items()]
    for name, share in found["loss_share_of_step"].items():
        ratio = found["step_over_step_without_loss"][name]
        lines.append(f"{name}: the loss is {100 * share:.2f} % of the step; step over one without a loss: {ratio:.4f}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__.splitlines()[0])
    result.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    result.add_argument("--backend", help="of the loss (default: what the op takes on the device)")
    result.add_argument("--backbone", choices=sorted(BACKBONES), default="resnet101", help="%(default)s by default")
    result.add_argument("--images", type=int, default=12, help="a batch (%(default)s)")
    result.add_argument("--size", type=int, default=512, help="side of an image in pixels (%(default)s)")
    result.add_argument("--old-classes", type=int, default=101, help="background included (%(default)s)")
    result.add_argument("--new-classes", type=int, default=50, help="(%(default)s)")
    result.add_argument("--float32", action="store_true", help="layers in float32 instead of bfloat16")
    result.add_argument("--rounds", type=int, default=7, help="(%(default)s)")
    result.add_argument("--seconds", type=float, default=0.5, help="for each candidate and round (%(default)s)")
    result.add_argument("--threads", type=int, default=2, help="torch's threads (%(default)s)")
    result.add_argument("--output", metavar="FOLDER", type=Path, help="write FOLDER/training_step.json as well")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    options = parser().parse_args(arguments)
    try:
        device = device_named(options.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with machine.torch_threads(options.threads):
            facts = machine.describe(device)
            if device.type == "cuda":
                facts["rates"] = machine.measure_rates(device)
            found = results(measure(options, device))
    except (CissFastError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{report.machine_text(facts)}\n\n{text(found)}")
    if options.output is not None:
        chosen = {name: value for name, value in vars(options).items() if name != "output"}
        content = {"op": "training_step", "options": chosen, "machine": facts, **found}
        print(report.write_json(options.output, "training_step", content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
