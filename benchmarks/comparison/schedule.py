"""Running experiments side by side, each in a process of its own, those that need another's base step after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ciss_fast.errors import CissFastError

from .experiments import Experiment, done_mark, is_done


def command_line(experiment: Experiment, settings: Mapping[str, Any], output: Path) -> list[str]:
    """The ``ciss-fast train`` that does, or goes on with, an experiment with all of its ``settings``."""
    settings = dict(settings)
    if experiment.base is not None:
        settings["base_from"] = str(output / experiment.base)
    arguments = [sys.executable, "-m", "ciss_fast", "train", "--recipe", experiment.setting.recipe]
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, Mapping):
            arguments += [part for key, entry in value.items() for part in (option, f"{key}={entry}")]
        else:
            arguments += [option, str(value)]
    return arguments


class Failed(CissFastError):
    """An experiment ended with an error; its log says which."""


def run_all(
    experiments: Sequence[Experiment],
    command: Callable[[Experiment], list[str]],
    output: Path,
    jobs: int,
    report: Callable[[str], None],
) -> None:
    """Run all experiments that are not done, ``jobs`` at a time, in their order as far as bases allow.

    What was interrupted goes on where it was. KeyboardInterrupt ends all of them, saved. Raises `Failed`, once all that
    run have ended, if one fails.
    """
    waiting, running, done = list(experiments), {}, set()
    failures: list[str] = []
    try:
        while running or (waiting and not failures):
            while waiting and len(running) < jobs and not failures:
                ready = next((one for one in waiting if one.base is None or one.base in done), None)
                if ready is None:
                    break
                waiting.remove(ready)
                if is_done(ready, output):
                    done.add(ready.name)
                    continue
                running[ready.name] = (_start(ready, command(ready), output), time.monotonic())
                report(f"{ready.name}: started; {len(done)} of {len(experiments)} done")
            for name, (process, start) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode:
                    failures.append(f"{name} ended with exit code {process.returncode}: see {_log(output, name)}")
                else:
                    done_mark(name, output).touch()
                    done.add(name)
                    report(f"{name}: done after {(time.monotonic() - start) / 60:.1f} min")
            if running:
                time.sleep(0.2)
    except KeyboardInterrupt:
        for process, _ in running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in running.values():
            process.wait()
        raise
    if failures:
        raise Failed("; ".join(failures))


def _log(output: Path, name: str) -> Path:
    return output / "logs" / f"{name.replace('/', '-')}.log"


def _start(experiment: Experiment, command: list[str], output: Path) -> subprocess.Popen[bytes]:
    log = _log(output, experiment.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **experiment.environment}
    with log.open("ab") as file:  # a session of its own: Ctrl-C is passed on by `run_all`, once
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
