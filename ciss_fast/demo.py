"""``python -m ciss_fast.demo``: forgetting and its cure, on embedded data, in a few minutes.

Trains the recipe ``demo`` with every method and compares them. Methods whose heads are of one family (softmax:
fine-tuning, MiB, ALIFE, ALIFE-M; sigmoid: DKD, DKD-M) start from the same base step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ciss_fast.cli import run_command
from ciss_fast.engine.compare import compare_runs
from ciss_fast.engine.precision import quicker_precision
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.recipes import load_recipe
from ciss_fast.engine.run import train
from ciss_fast.methods import get_method
from ciss_fast.report import write_report

METHODS = ("fine-tuning", "mib", "alife", "alife-m", "dkd", "dkd-m")


def run_demo(output: Path) -> None:
    """Train all methods into folders of ``output`` and print the comparison; finished steps are not done
    again.
    """
    reporter, start = Reporter(), time.monotonic()
    bases: dict[str, Path] = {}
    for method in METHODS:
        settings = {"method": method, "output": str(output / method), "precision": quicker_precision()}
        family = get_method(method).prediction_kind
        if family in bases:
            settings["base_from"] = str(bases[family])
        bases.setdefault(family, output / method)
        train(load_recipe("demo").with_settings(settings), reporter)
        reporter.message("")
    table, plot = compare_runs([output / method for method in METHODS])
    reporter.result(table)
    reporter.result(f"comparison: {plot}")
    reporter.result(f"report: {write_report([output / method for method in METHODS], output / 'report.html')}")
    for method in METHODS:
        reporter.result(f"{method}: {output / method / 'curves.png'}, {output / method / 'predictions.png'}")
    reporter.message(f"{time.monotonic() - start:.0f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ciss_fast.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="results folder (%(default)s)")
    output = parser.parse_args(arguments).output
    return run_command(lambda: run_demo(output))


if __name__ == "__main__":
    sys.exit(main())
