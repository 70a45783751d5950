"""The command line: ``ciss-fast train``, ``compare``, ``recipes [list|show NAME]``, and those in `ciss_fast.commands`.

A mistake of the user ends in one line on standard error and exit code 2, an interruption in exit code 130.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ciss_fast import __version__
from ciss_fast.commands import convert, evaluate, predict, report
from ciss_fast.engine.config import Config, all_settings, option_name
from ciss_fast.engine.recipes import describe_recipe, effective_recipe, is_published, load_recipe, recipe_names, to_toml
from ciss_fast.errors import CissFastError, ConfigError
from ciss_fast.failures import describe_failure


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like every other error, in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} ({self.prog} --help lists the options)")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands, with one option for every setting of `Config`."""
    parser = _Parser(prog="ciss-fast", description="Class-incremental semantic segmentation.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train and evaluate all steps of a task", allow_abbrev=False)
    train.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help="settings to start from: a name such as dkd-voc-15-1 (ciss-fast recipes lists them), a TOML file or the "
        "config.json of a run; options on the command line go before",
    )
    train.add_argument("--quiet", action="store_true", help="print the table of scores only")
    train.add_argument(
        "--dry-run", action="store_true",
        help="try a few iterations and print what would be trained and written, and how long it would take",
    )  # fmt: skip
    _add_settings(train)
    train.set_defaults(run=run_train)
    compare = commands.add_parser("compare", help="one table and one plot over several runs", allow_abbrev=False)
    compare.add_argument("runs", nargs="+", metavar="RUN", help="results folder")
    compare.add_argument("--output", metavar="PNG", help="the plot; comparison.png beside the first run by default")
    compare.set_defaults(run=run_compare)
    recipes = commands.add_parser("recipes", help="list the recipes, or show one", allow_abbrev=False)
    actions = recipes.add_subparsers(dest="action", metavar="list|show")
    actions.add_parser("list", help="names, data sets, tasks and methods (default)", allow_abbrev=False)
    show = actions.add_parser("show", help="all settings of a recipe, as TOML", allow_abbrev=False)
    show.add_argument("recipe", metavar="NAME|FILE", help="as for train --recipe")
    recipes.set_defaults(run=run_recipes)
    for command in (report, predict, evaluate, convert):
        command.add_parser(commands)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    groups: dict[str, Any] = {}
    for section, field, declared in all_settings():
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        default = field.default if field.default is not None else "none"
        if field.metadata["published"]:
            default = "as the method is published"
        keywords: dict[str, Any] = {"dest": field.name, "default": None}
        keywords["help"] = f"{field.metadata['help']} (default: {default})".replace("%", "%%")
        if declared in (bool, bool | None):
            keywords["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(declared) is dict:
            keywords.update(action="append", metavar="NAME=VALUE", help=f"{field.metadata['help']} (repeatable)")
        else:
            choices = field.metadata["choices"]
            keywords["metavar"] = "|".join(choices) if choices else _metavar(declared)
        groups[section].add_argument(option_name(field.name), **keywords)


def _metavar(declared: Any) -> str:
    names = {int: "N", float: "X", str: "TEXT"}
    options = typing.get_args(declared) if isinstance(declared, types.UnionType) else (declared,)
    if any(typing.get_origin(option) is tuple for option in options):
        return "X[,X...]"
    return next(names[option] for option in options if option in names)


def run_train(arguments: argparse.Namespace) -> None:
    """``ciss-fast train``."""
    from ciss_fast.engine.dry_run import dry_run
    from ciss_fast.engine.progress import Reporter
    from ciss_fast.engine.run import train

    config = load_recipe(arguments.recipe) if arguments.recipe else Config()
    names = [field.name for _, field, _ in all_settings()]
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    (dry_run if arguments.dry_run else train)(config.with_settings(given), Reporter(quiet=arguments.quiet))


def run_compare(arguments: argparse.Namespace) -> None:
    """``ciss-fast compare``."""
    from ciss_fast.engine.compare import compare_runs

    table, plot = compare_runs([Path(run) for run in arguments.runs], arguments.output)
    print(table)
    print(f"plot: {plot}")


def run_recipes(arguments: argparse.Namespace) -> None:
    """``ciss-fast recipes``."""
    if arguments.action == "show":
        config = effective_recipe(load_recipe(arguments.recipe))
        print(f"# {arguments.recipe}: every setting of the run; this text is a recipe file itself")
        if not is_published(arguments.recipe):
            print("# unpublished: no paper gives these values for this task")
        print(to_toml(config), end="")
    else:
        for name in recipe_names():
            print(describe_recipe(name))


def run_command(command: Callable[[], None]) -> int:
    """Call ``command`` and return the program's exit code: 0, 2 for a mistake of the user, 130 when
    interrupted, 141 when nobody reads the output any more.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            command()
        sys.stdout.flush()
    except CissFastError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        reason = describe_failure(error)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output has enough of it, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python writes at its end goes nowhere
        return 141
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        what = str(interruption) or "the same training command goes on from what was saved last"
        print(f"interrupted ({what})", file=sys.stderr)
        return 130
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code, see `run_command`."""

    def command() -> None:
        parsed = build_parser().parse_args(arguments)
        parsed.run(parsed)

    return run_command(command)


def _print_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
