"""``python -m benchmarks OP``: time and memory of an op against plain PyTorch and torch.compile.

Exit codes: 0; 1 if a result disagrees with the float64 reference (nothing is reported then); 2 for another
error, such as a mistake in the command line.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ciss_fast import backends, native
from ciss_fast.errors import CissFastError, ConfigError

from . import machine, report
from .case import OPS, Case, Target, load_cases
from .measure import WrongResult
from .parser import Parser
from .runner import Settings, run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="python -m benchmarks", description="Time and memory of an op, measured.", allow_abbrev=False)
    result.add_argument("op", choices=OPS, help="the op to measure")
    result.add_argument("--list", action="store_true", help="name the cases and stop")
    result.add_argument("--cases", metavar="NAME[,NAME...]", help="only these; * and ? as in file names")
    result.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    result.add_argument("--backend", help="the op's backend to measure (default: what the op takes on the device)")
    result.add_argument("--threads", type=_positive, default=2, help="torch's threads (default: 2)")
    result.add_argument("--rounds", type=_positive, default=11, help="rounds of each case (default: 11)")
    result.add_argument("--quick", action="store_true", help="shrunk cases, 3 rounds: does everything run?")
    result.add_argument("--no-compile", action="store_true", help="without torch.compile")
    result.add_argument("--no-memory", action="store_true", help="without the measurement of memory")
    result.add_argument("--output", metavar="FOLDER", type=Path, help="write FOLDER/OP.json as well")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    try:
        _run(parser().parse_args(arguments))
    except WrongResult as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (CissFastError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    target = Target(device_named(options.device), options.backend)
    cases = select(load_cases(options.op, target), options.cases)
    if options.list:
        print("\n".join(f"{case.name:<22}  {case.description}" for case in cases))
        return
    if options.backend is not None:
        _check_backend(options.op, target)
    if native.library is None and not target.on_gpu:
        raise ConfigError(f"native library: expected one to measure, got none: {native.unavailable_reason}")
    settings = Settings(
        threads=options.threads,
        rounds=3 if options.quick else options.rounds,
        seconds=0.02 if options.quick else 0.2,
        compile=not options.no_compile,
        memory=not options.no_memory,
        shrunk=options.quick,
        target=target,
    )
    if target.on_gpu:
        torch.cuda.set_device(target.device)
        torch.backends.cudnn.allow_tf32 = False  # what is compared works in single precision
    with machine.torch_threads(settings.threads):
        facts = machine.describe(target.device)
        facts["rates"] = machine.measure_rates(target.device)
        records = run(options.op, cases, settings, facts["rates"], _tell)
        facts["load_after"] = machine.load()
    print(report.machine_text(facts), end="\n\n")
    if options.quick:
        print("Shrunk cases: these numbers say that everything runs, not how fast.\n")
    print(report.table(records))
    if options.output is not None:
        content = _content(options, settings, facts, records)
        print(f"\n{report.write_json(options.output, options.op, content)}")


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _content(
    options: argparse.Namespace, settings: Settings, facts: dict[str, Any], records: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "op": options.op,
        "quick": options.quick,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rounds": settings.rounds,
        "seconds_per_candidate_and_round": settings.seconds,
        "machine": facts,
        "cases": records,
    }


def device_named(name: str) -> torch.device:
    """The device of ``--device``. Raises ConfigError where it is not here."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device: expected cpu, cuda or cuda:NUMBER, got {name!r}")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigError(f"--device: expected one of {count} GPUs that torch finds, got {name!r}")
    return torch.device("cuda", device.index or 0)


def _check_backend(op: str, target: Target) -> None:
    try:
        backends.choose(op, target.backend, target.device)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"--backend: {error}") from None


def select(cases: Sequence[Case], patterns: str | None) -> list[Case]:
    """The cases that match one of the comma-separated patterns; all without patterns."""
    if patterns is None:
        return list(cases)
    chosen: list[Case] = []
    for pattern in patterns.split(","):
        found = [case for case in cases if fnmatch.fnmatchcase(case.name, pattern)]
        if not found:
            raise ConfigError(f"--cases: expected names of cases (--list names them), got {pattern!r}")
        chosen += [case for case in found if case not in chosen]
    return chosen


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
