"""``python -m benchmarks.comparison run`` does all experiments, ``page`` writes what came out. See README.md."""

from __future__ import annotations

import argparse
import fnmatch
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.cli import run_command
from ciss_fast.engine.recipes import effective_recipe, load_recipe
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.errors import ConfigError

from ..parser import Parser
from .data import prepare
from .estimate import seconds_of
from .experiments import Experiment, all_experiments, is_done
from .page import groups_of, partial_groups, table, write_page, write_tables
from .pictures import draw_picture
from .schedule import command_line, run_all
from .tasks import QUICK_SETTINGS, SETTINGS, TUNING

ABLATED = "msrc-15-6"
TIMELESS = (
    "loss_weight", "lr_later", "unbiased_terms", "new_classifier_start", "pos_weight_later", "later_freeze_batch_norm",
    "later_optimiser",
)  # fmt: skip
"""Settings of experiments that do not change how long they take."""
PAGE = Path("docs/results/comparison.html")
QUICK = {
    "crop_size": 32, "epochs_base": 0.2, "epochs_later": 0.2, "head_channels": 16, "features_per_class": 5,
    "rotation_epochs": 0.2, "replay_epochs": 0.2, "memory_images": 10,
    "data_option": {"train_images": 60, "val_images": 12},
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="python -m benchmarks.comparison", description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = result.add_subparsers(dest="command", required=True, metavar="run|page")
    run = commands.add_parser("run", help="do what is not done yet", allow_abbrev=False)
    run.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the archives (%(default)s)")
    run.add_argument("--jobs", type=int, default=2, help="experiments at a time (%(default)s)")
    run.add_argument("--threads", type=int, default=1, help="threads of each (%(default)s)")
    run.add_argument("--plan", action="store_true", help="say what would be done and how long it takes, and stop")
    page = commands.add_parser("page", help="write the page and print the tables", allow_abbrev=False)
    page.add_argument("--page", type=Path, help=f"({PAGE}; with --quick none)")
    page.add_argument(
        "--partial", action="store_true", help="also groups of which not everything is finished and asked for"
    )
    page.add_argument("--tables", type=Path, nargs="+", default=[], metavar="FILE", help="Markdown with marked tables")
    for command in (run, page):
        command.add_argument("--output", type=Path, default=Path("runs/comparison"), help="results (%(default)s)")
        command.add_argument("--only", metavar="NAME[,NAME...]", default="*", help="experiments; * as in file names")
        command.add_argument("--quick", action="store_true", help="tiny runs on the embedded images: does it work?")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""

    def command() -> None:
        options = parser().parse_args(arguments)
        (_run if options.command == "run" else _page)(options)

    return run_command(command)


def _known(options: argparse.Namespace) -> list[Experiment]:
    """All that ``--only`` chooses from."""
    if options.quick:
        return all_experiments(QUICK_SETTINGS, "shapes-6-3", ())
    return all_experiments(SETTINGS, ABLATED, TUNING)


def _experiments(options: argparse.Namespace, *, with_bases: bool) -> list[Experiment]:
    """What is asked for; ``with_bases``: and the bases it needs."""
    known = _known(options)
    patterns = options.only.split(",")
    chosen = [one for one in known if any(fnmatch.fnmatchcase(one.name, pattern) for pattern in patterns)]
    if not chosen:
        names = ", ".join(one.name for one in known)
        raise ConfigError(f"--only: no experiment is called {options.only}; there are {names}")
    bases = {one.base for one in chosen} if with_bases else set()
    return [one for one in known if one in chosen or one.name in bases]


def _run(options: argparse.Namespace) -> None:
    experiments = _experiments(options, with_bases=True)
    data = {one.setting.data: prepare(one.setting.data, options.data, options.output) for one in experiments}
    extra: dict[str, Any] = {"threads": options.threads, "previews": 4, **(QUICK if options.quick else {})}
    settings = {
        one.name: {
            **data[one.setting.data], "task": one.setting.task, "seed": one.seed, **extra, **one.setting.changes,
            **one.settings,
            "output": str(options.output / one.name),
        }
        for one in experiments
    }  # fmt: skip
    for one in experiments:  # what was made with other settings is found now
        config = effective_recipe(load_recipe(one.setting.recipe).with_settings(settings[one.name]))
        ResultsFolder(options.output / one.name).check(config)
    waiting = [one for one in experiments if not is_done(one, options.output)]
    print(f"{len(experiments)} experiments, {len(waiting)} to be done or finished", flush=True)
    if waiting and not options.quick or options.plan:
        seconds = _estimates(waiting, settings, options.output / "estimates.json", options.jobs)
        total = sum(seconds.values()) / options.jobs
        print(f"about {total / 60:.0f} min, {options.jobs} at a time, {options.threads} threads each", flush=True)
    if not options.plan:
        for number in (signal.SIGINT, signal.SIGTERM):  # in the background, too, where shells have SIGINT ignored
            signal.signal(number, signal.default_int_handler)
        run_all(
            experiments,
            lambda one: command_line(one, settings[one.name], options.output),
            options.output,
            options.jobs,
            lambda line: print(line, flush=True),
        )


def _estimates(
    experiments: Sequence[Experiment], settings: Mapping[str, Any], cache: Path, jobs: int
) -> dict[str, float]:
    """Seconds by experiment. One of every kind is tried out, ``jobs`` at a time as later; ``cache`` keeps them."""
    known = json.loads(cache.read_text("utf-8")) if cache.exists() else {}
    kinds = {one.name: _kind(one) for one in experiments}
    examples = {kinds[one.name]: one for one in reversed(experiments) if kinds[one.name] not in known}
    print(f"trying out {len(examples)} kinds of experiments", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        for kind, seconds in zip(
            examples, pool.map(lambda one: seconds_of(one, settings[one.name]), examples.values()), strict=True
        ):
            known[kind] = seconds
            atomic_write_text(cache, json.dumps(known, indent=0))
    return {name: known[kind] for name, kind in kinds.items()}


def _kind(one: Experiment) -> str:
    own = {name: value for name, value in one.settings.items() if name not in TIMELESS}
    recipe, changes = load_recipe(one.setting.recipe).to_dict(), dict(one.setting.changes)
    return json.dumps([one.setting.name, recipe, changes, one.base is not None, own, dict(one.environment)])


def _page(options: argparse.Namespace) -> None:
    experiments, known = _experiments(options, with_bases=False), _known(options)
    groups = groups_of(experiments, options.output)
    for name, configurations in groups.items():
        print(f"\n{name}\n\n{table(configurations)}")
    partial = partial_groups(known, [one for one in experiments if is_done(one, options.output)])
    for name, part in partial.items():
        kept = "" if options.partial else "; what stands on the page and in tables stays (see --partial)"
        print(f"\n{name}: only {part} experiments are finished and asked for{kept}")
    if not options.partial:
        groups = {name: group for name, group in groups.items() if name not in partial}
    page = options.page or (None if options.quick else PAGE)
    if page is not None:
        tuned = {candidates.setting.name for candidates in TUNING}  # tables say all there is to say
        order = [name for name in dict.fromkeys(one.group for one in known) if name not in tuned]
        shown = {name: group for name, group in groups.items() if name in order}
        print(f"\npage: {write_page(shown, page, order)}")
        for name in [name for name in shown if name in {one.setting.name for one in experiments}]:
            path = page.with_name(f"{page.stem}-{name}.png")
            print(f"picture: {draw_picture(path, groups[name]) or 'none, there are no previews'}")
    for path in options.tables:
        print(f"{path}: {write_tables(groups, path)} tables")


if __name__ == "__main__":
    sys.exit(main())
