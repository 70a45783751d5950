"""``python -m benchmarks.gpu_run --output FOLDER --shared FOLDER``: builds, tests and measures on a GPU in one call.

Stages run one after the other (`gpu_stages`; ``--list`` names them), each with a time limit and a log of its own in the
output folder. One that fails does not stop the others. ``summary.json`` and ``summary.txt`` hold what every stage came
to, those of earlier calls with the same folder included, so that the work can be spread over several calls:
``--stages 'build,tests*'``. ``results.tar.gz`` holds everything but data and checkpoints.

Exit codes: 0 if every chosen stage passed or was left out with a reason; 1 if one failed or took too long; 2, at once
and with nothing run, if the command line is wrong or a file that a chosen stage needs is missing.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.engine.tables import text_table
from ciss_fast.errors import ConfigError

from .gpu_stages import ROOT, Stage, all_stages, unpack
from .parser import Parser

NOT_RESULTS = ("work", "results.tar.gz")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="python -m benchmarks.gpu_run", description=__doc__.splitlines()[0], allow_abbrev=False)
    result.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for logs and results")
    result.add_argument("--shared", type=Path, required=True, metavar="FOLDER", help="with golden/ and data/")
    result.add_argument("--stages", metavar="NAME[,NAME...]", help="only these; * and ? as in file names")
    result.add_argument("--skip", metavar="NAME[,NAME...]", help="all but these")
    result.add_argument("--list", action="store_true", help="name the stages with their commands and stop")
    result.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tries the script itself out")
    result.add_argument("--backend", help="for the benchmarks (default: what an op takes on the device)")
    result.add_argument("--quick", action="store_true", help="a little of every stage: does everything run?")
    result.add_argument("--training-minutes", type=float, default=9.0, help="for each method (%(default)s)")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    try:
        options = parser().parse_args(arguments)
        options.output, options.shared = options.output.resolve(), options.shared.resolve()
        stages = chosen_stages(all_stages(options), options.stages, options.skip)
        if options.list:
            print("\n".join(f"{stage.name:<26}{stage.missing or shlex.join(stage.command)}" for stage in stages))
            return 0
        check(options, stages)
        return _run(options, stages)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def chosen_stages(stages: Sequence[Stage], wanted: str | None, skipped: str | None) -> list[Stage]:
    """The stages that match a pattern of ``wanted`` and none of ``skipped``, in their order."""
    for option, patterns in (("--stages", wanted), ("--skip", skipped)):
        for pattern in (patterns or "").split(","):
            if pattern and not any(fnmatch.fnmatchcase(stage.name, pattern) for stage in stages):
                raise ConfigError(f"{option}: expected names of stages (--list names them), got {pattern!r}")

    def matches(stage: Stage, patterns: str) -> bool:
        return any(fnmatch.fnmatchcase(stage.name, pattern) for pattern in patterns.split(","))

    return [
        stage
        for stage in stages
        if (wanted is None or matches(stage, wanted)) and not (skipped and matches(stage, skipped))
    ]


def check(options: argparse.Namespace, stages: Sequence[Stage]) -> None:
    """Raise ConfigError where there is no GPU or the shared folder lacks a file that a chosen stage needs."""
    needed = dict.fromkeys(name for stage in stages for name in stage.needs)
    missing = [name for name in needed if not (options.shared / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"--shared: expected {missing[0]}{more} in {options.shared}, found no such file")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device: expected a GPU that torch can use, found none (--device cpu tries the script out)")


def _run(options: argparse.Namespace, stages: Sequence[Stage]) -> int:
    (options.output / "logs").mkdir(parents=True, exist_ok=True)
    summary = read_summary(options.output)
    if any(stage.name.startswith("train-") for stage in stages):
        unpack(options)
    for number, stage in enumerate(stages, 1):
        print(f"[{number}/{len(stages)}] {stage.name}", flush=True)
        summary[stage.name] = outcome = run_stage(stage, options)
        print(f"    {outcome['status']} after {outcome['seconds']:.0f} s: {outcome['note']}", flush=True)
        write_summary(options.output, summary)
    pack(options.output)
    print(f"\n{summary_text(summary)}\n\nresults: {options.output}")
    return int(any(summary[stage.name]["status"] in ("failed", "timeout") for stage in stages))


def run_stage(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Run one stage; its status is "passed", "failed", "timeout" or "left out"."""
    outcome: dict[str, Any] = {
        "status": "left out",
        "seconds": 0.0,
        "exit_code": None,
        "note": stage.missing or "",
        "command": shlex.join(stage.command),
        "device": options.device,
        "quick": options.quick,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if stage.missing:
        return outcome
    log = options.output / "logs" / f"{stage.name}.log"
    for name in stage.results:
        (options.output / name).unlink(missing_ok=True)  # an earlier call's must not pass for this one's
    start = time.monotonic()
    code = _run_command(stage, log)
    outcome["seconds"] = time.monotonic() - start
    outcome["exit_code"] = code
    outcome["status"] = "timeout" if code is None else "passed" if code == 0 else "failed"
    outcome["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    outcome["note"] = f"stopped after {stage.seconds:.0f} s" if code is None else _last_line(log)
    for name in stage.results:
        outcome["tests"] = count_tests(options.output / name)
    return outcome


def _run_command(stage: Stage, log: Path) -> int | None:
    """The exit code; None where the time limit was reached and the command and its children were stopped."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **stage.environment}
    with log.open("wb") as output:
        output.write(f"$ {shlex.join(stage.command)}\n".encode())
        output.flush()
        try:
            process = subprocess.Popen(
                stage.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            output.write(f"{error}\n".encode())
            return 127
        try:
            return process.wait(stage.seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def count_tests(report: Path) -> dict[str, Any] | None:
    """Numbers of a junit file, and why tests were skipped; None where there is no file."""
    if not report.is_file():
        return None
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts: dict[str, Any] = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    reasons: dict[str, int] = {}
    for suite in suites:
        for name in ("tests", "failures", "errors", "skipped"):
            counts[name] += int(suite.get(name, 0))
        for skipped in suite.iter("skipped"):
            reason = skipped.get("message", "")
            reasons[reason] = reasons.get(reason, 0) + 1
    return counts | {"reasons_for_skipping": reasons}


def read_summary(folder: Path) -> dict[str, Any]:
    """What earlier calls found, by stage."""
    file = folder / "summary.json"
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text())["stages"]
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{file}: expected the summary of an earlier call, got {error!r}") from None


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """``summary.json`` and ``summary.txt``."""
    atomic_write_text(folder / "summary.json", json.dumps({"stages": summary}, indent=1) + "\n")
    atomic_write_text(folder / "summary.txt", summary_text(summary) + "\n")


def summary_text(summary: dict[str, Any]) -> str:
    """A line for each stage."""
    rows = []
    for name, outcome in summary.items():
        tests = outcome.get("tests")
        failed = tests["failures"] + tests["errors"] if tests else 0
        counted = f"{tests['tests']} tests, {failed} failed, {tests['skipped']} skipped" if tests else outcome["note"]
        rows.append([name, outcome["status"], f"{outcome['seconds']:.0f}", counted])
    return text_table(["stage", "status", "seconds", "what"], rows)


def pack(folder: Path) -> None:
    """``results.tar.gz``: logs, reports and results, without data and checkpoints."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        first = Path(member.name).parts[:1]
        return None if first and first[0] in NOT_RESULTS or member.name.endswith((".pt", ".pth")) else member

    target = folder / "results.tar.gz"
    partial = folder / "work" / "results.tar.gz.part"
    partial.parent.mkdir(exist_ok=True)
    with tarfile.open(partial, "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=kept)
    partial.replace(target)


if __name__ == "__main__":
    sys.exit(main())
