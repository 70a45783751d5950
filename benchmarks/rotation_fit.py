"""``python -m benchmarks.rotation_fit``: where the time of ALIFE-M's stage 2 goes.

Runs iterations of the real fit (`ciss_fast.memory.rotation_fit`, on random images through randomly initialised
extractors) and reports the time and the share of each part, what the whole fit of a step takes at that rate, and the
same iterations as the paper writes them: the whole correlation matrix, one dense inverse a class, plain Adam. By
default a VOC 15-5 step: 16 old classes with 1000 features of 256 numbers, 24 images of 512 x 512 an iteration in
two groups of 12, ResNet-101, 10 passes over 2145 images. On a GPU (``--device cuda``) a part ends when the GPU is done
with it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

import ciss_fast
from ciss_fast.errors import CissFastError
from ciss_fast.memory.replay import joint_classifier
from ciss_fast.memory.rotation_fit import (
    TEMPERATURE,
    batch_prototypes,
    initial_rotations,
    positions,
    rotate_memory,
    rotation_optimiser,
)
from ciss_fast.models import BACKBONES, SegmentationModel, build_model

from . import machine, report
from .__main__ import device_named

PARTS = ("networks", "prototypes", "rotations", "optimiser")
Result = TypeVar("Result")


class Clock:
    """Seconds by part, of the processor (all threads of the process together) or of the wall; on a GPU of the wall."""

    def __init__(self, processor: bool, device: torch.device) -> None:
        self.device = device
        self.now = time.process_time if processor and device.type == "cpu" else time.perf_counter
        self.seconds: dict[str, list[float]] = {}

    def time(self, part: str, function: Callable[[], Result]) -> Result:
        self._wait()
        start = self.now()
        result = function()
        self._wait()
        self.seconds.setdefault(part, []).append(self.now() - start)
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def median(self, part: str) -> float:
        return statistics.median(self.seconds[part])


def extract_both(
    previous: SegmentationModel, current: SegmentationModel, images: Tensor, bf16: bool
) -> tuple[Tensor, Tensor]:
    """Feature maps of a batch from both extractors, in the arithmetic that the trainer has with --precision."""
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        return previous.extract(images), current.extract(images)


def published_prototypes(maps: tuple[Tensor, Tensor], memory: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Prototypes with the correlation of all features and positions written down, [K S, P]."""
    directions, pairs = functional.normalize(memory.flatten(0, 1), dim=1), []
    for before, after in zip(*(entry.split(group_size) for entry in maps), strict=True):
        rows, current = positions(before).float(), positions(after).float()
        scores = (directions @ functional.normalize(rows, dim=1).T).relu_().view(*memory.shape[:2], -1).sum(dim=1)
        weights = (TEMPERATURE * scores).softmax(dim=1)
        pairs.append((weights @ rows, weights @ current))
    return torch.stack([pair[0] for pair in pairs], dim=1), torch.stack([pair[1] for pair in pairs], dim=1)


def published_rotation_loss(
    params: Sequence[Tensor], previous: Tensor, current: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """FID and REG with one dense rotation a class, each from its own inverse."""
    dimension, device = previous.shape[-1], previous.device
    rows, columns = torch.triu_indices(dimension, dimension, 1, device=device)
    identity, rotated = torch.eye(dimension, device=device), []
    offset = current.mean(dim=0)
    for entry, vectors in zip(params, previous - previous.mean(dim=0), strict=True):
        upper = torch.zeros(dimension, dimension, device=device).index_put((rows, columns), entry)
        skew = (upper - upper.T) / 2
        rotated.append(vectors @ ((identity - skew) @ torch.inverse(identity + skew)).T)
    result = torch.stack(rotated)
    fidelity = (1 - functional.cosine_similarity(result, current - offset, dim=-1)).mean()
    logits = functional.linear(result + offset, weight, bias)
    classes = torch.arange(len(result), device=device)[:, None].expand(logits.shape[:-1])
    return 0.99 * fidelity + 0.01 * functional.cross_entropy(logits.flatten(0, -2), classes.flatten())


def measure(options: argparse.Namespace, device: torch.device) -> tuple[Clock, Clock, float]:
    """Time the parts of both forms over the iterations, in turn, and how long applying the rotations takes."""
    torch.manual_seed(0)
    dimension = options.dimension
    previous, current = (
        build_model(options.backbone, 16, [options.classes, 5], head_channels=dimension)
        .frozen_copy()
        .to(device, memory_format=torch.channels_last)
        for _ in range(2)
    )
    weight, bias = joint_classifier(current)
    # Features of a trained network are not negative (ReLU) and differ in size; so are these.
    memory = torch.rand(options.classes, options.features, dimension).to(device) ** 2
    params = (options.norm * initial_rotations(options.classes, dimension)).to(device).requires_grad_()
    optimiser = rotation_optimiser(params, 1e-2, 1e-4)
    separate = [entry.detach().clone().requires_grad_() for entry in params]
    plain = torch.optim.Adam(separate, lr=1e-2, weight_decay=1e-4, foreach=False)
    ours, published = (Clock(not options.wall, device) for _ in range(2))

    def gradient(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()

    for iteration in range(options.iterations + 1):
        images = torch.randn(options.images, 3, options.size, options.size)
        images = images.to(device, memory_format=torch.channels_last)
        maps = ours.time("networks", lambda images=images: extract_both(previous, current, images, options.bf16))
        made = ours.time("prototypes", lambda maps=maps: batch_prototypes(*maps, memory, options.group))
        ours.time(
            "rotations", lambda made=made: gradient(optimiser, ciss_fast.rotation_loss(params, *made, weight, bias)[0])
        )
        ours.time("optimiser", optimiser.step)
        if not options.no_published:
            theirs = published.time(
                "prototypes", lambda maps=maps: published_prototypes(maps, memory, options.group)
            )
            published.time(
                "rotations",
                lambda theirs=theirs: gradient(plain, published_rotation_loss(separate, *theirs, weight, bias)),
            )
            published.time("optimiser", plain.step)
        if iteration == 0:  # the first one warms up
            ours.seconds.clear()
            published.seconds.clear()
    ours.time("applying", lambda: rotate_memory(params, memory))
    return ours, published, ours.median("applying")


def results(options: argparse.Namespace, ours: Clock, published: Clock, applying: float) -> dict[str, Any]:
    """Milliseconds by part, as they go into the JSON file."""
    iterations = options.epochs * max(1, options.step_images // options.images)
    return {
        "milliseconds": {part: 1e3 * ours.median(part) for part in PARTS},
        "published_milliseconds": {part: 1e3 * published.median(part) for part in published.seconds},
        "applying_milliseconds": 1e3 * applying,
        "iterations_of_a_fit": iterations,
        "time_of": "wall" if ours.now is time.perf_counter else "processor",
    }


def table(options: argparse.Namespace, facts: dict[str, Any], found: dict[str, Any]) -> str:
    """The measurements as a table."""
    times, theirs, iterations = found["milliseconds"], found["published_milliseconds"], found["iterations_of_a_fit"]
    total = sum(times.values())
    rest = total - times["networks"]
    lines = [
        f"{facts.get('gpu', facts['processor'])}, {facts['threads']} threads, torch {torch.__version__}; "
        f"{found['time_of']} time, medians of {options.iterations} iterations",
        f"{options.classes} classes x {options.features} features of {options.dimension}, {options.images} images of "
        f"{options.size} x {options.size} in groups of {options.group}, {options.backbone} in "
        f"{'bf16' if options.bf16 else 'fp32'}, rotations at {options.norm:g} times their start",
        "",
        f"{'part':<12}{'ms':>12}{'share':>9}{'published form, ms':>21}{'ratio':>9}",
    ]
    for part, mean in times.items():
        line = f"{part:<12}{mean:>12.2f}{100 * mean / total:>8.2f}%"
        if part in theirs:
            line += f"{theirs[part]:>21.2f}{theirs[part] / mean:>8.1f}x"
        lines.append(line)
    lines += [
        "",
        f"an iteration: {total:.1f} ms, without the networks {rest:.2f} ms",
        f"whole fit: {iterations} iterations, {iterations * total / 1e3:.0f} s (computed, not run); without the "
        f"networks {iterations * rest / 1e3:.1f} s; rotating the memory once: {found['applying_milliseconds']:.1f} ms",
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks.rotation_fit", description=__doc__.splitlines()[0])
    result.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    result.add_argument("--classes", type=int, default=16, help="old classes (%(default)s)")
    result.add_argument("--features", type=int, default=1000, help="features a class (%(default)s)")
    result.add_argument("--dimension", type=int, default=256, help="numbers a feature (%(default)s)")
    result.add_argument("--images", type=int, default=24, help="images an iteration (%(default)s)")
    result.add_argument("--group", type=int, default=12, help="images that share a softmax (%(default)s)")
    result.add_argument("--size", type=int, default=512, help="side of an image in pixels (%(default)s)")
    result.add_argument("--backbone", choices=sorted(BACKBONES), default="resnet101", help="%(default)s by default")
    result.add_argument("--bf16", action="store_true", help="networks in bfloat16, as with --precision bf16")
    result.add_argument("--norm", type=float, default=1.0, help="factor on the starting rotations (%(default)s)")
    result.add_argument("--step-images", type=int, default=2145, help="images of the step (%(default)s)")
    result.add_argument("--epochs", type=int, default=10, help="passes over them (%(default)s)")
    result.add_argument("--iterations", type=int, default=5, help="to measure (%(default)s)")
    result.add_argument("--threads", type=int, default=2, help="torch's threads (%(default)s)")
    result.add_argument("--wall", action="store_true", help="wall time instead of processor time (a GPU: always)")
    result.add_argument("--no-published", action="store_true", help="without the published form")
    result.add_argument("--output", metavar="FOLDER", type=Path, help="write FOLDER/rotation_fit.json as well")
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
            found = results(options, *measure(options, device))
        print(table(options, facts, found))
        if options.output is not None:
            chosen = {name: value for name, value in vars(options).items() if name != "output"}
            content = {"op": "rotation_fit", "options": chosen, "machine": facts, **found}
            print(report.write_json(options.output, "rotation_fit", content))
    except (CissFastError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
