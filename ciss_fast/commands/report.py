"""``ciss-fast report``: one HTML page over several runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("report", help="one HTML page that compares runs", allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="results folder; runs that differ in the seed or the class order only "
        "count as one configuration (mean and standard deviation)",
    )  # fmt: skip
    parser.add_argument("--output", metavar="HTML", help="the page; report.html beside the first run by default")
    parser.add_argument(
        "--photographs", action=argparse.BooleanOptionalAction, default=True,
        help="show test images and their ground truth beside predictions; --no-photographs where the data may not be "
        "passed on (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    from ciss_fast.report import write_report

    runs = [Path(folder) for folder in arguments.runs]
    output = arguments.output or runs[0].resolve().parent / "report.html"
    print(f"report: {write_report(runs, output, photographs=arguments.photographs)}")
