"""Recipes: settings that belong together, by name or from a file.

- ``METHOD-DATASET-TASK``, such as ``dkd-voc-15-1``: a method as it is published for a task of the protocol. The recipe
  names method, data set and task; the values are those of `ciss_fast.methods.published` and `published_runs`, filled
  in when the run is planned, so that ``--task`` or ``--method`` beside it bring their own.
- the TOML files in `ciss_fast.recipes`;
- any TOML file with settings by section, and the ``config.json`` of a run.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from ciss_fast.data.tasks import TASKS, task_name
from ciss_fast.engine.config import Config
from ciss_fast.engine.effective_config import effective_config, method_settings
from ciss_fast.errors import ConfigError
from ciss_fast.methods import METHODS, get_method
from ciss_fast.methods.published_runs import evaluation_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATASET_ALIASES = {"ade": "ade20k"}


def recipe_names() -> list[str]:
    """All names that `load_recipe` knows: the package's files, then the published methods by data set and task."""
    return [*_file_names(), *_published_names()]


def load_recipe(name_or_file: str) -> Config:
    """The configuration of a recipe: a name, a TOML file, or a run's config.json.

    Names of methods, data sets and tasks may be aliases (``ft-ade-50``). Of a config.json everything counts but where
    its run's results went. Raises `ConfigError` if there is no such recipe, the file cannot be read, or it holds
    unknown settings.
    """
    if name_or_file in _file_names():
        text = resources.files("ciss_fast.recipes").joinpath(f"{name_or_file}.toml").read_text("utf-8")
        return Config.from_dict(tomllib.loads(text), f"recipe {name_or_file}")
    published = _published_recipe(name_or_file)
    if published is not None:
        return published
    path = Path(name_or_file)
    if not path.is_file():
        close = difflib.get_close_matches(name_or_file, recipe_names(), n=3)
        hint = f"such as {', '.join(close)}" if close else "ciss-fast recipes lists them"
        raise ConfigError(f"--recipe: expected the name of a recipe ({hint}) or a file, got {name_or_file!r}")
    try:
        text = path.read_text("utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--recipe: cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--recipe: expected {path} to hold settings by section, got {type(values).__name__}")
    config = Config.from_dict(values, f"recipe {path}")
    return config.with_settings({"output": None}) if path.suffix == ".json" else config


def describe_recipe(name: str) -> str:
    """One line: name, data set, task, method and network of a recipe, and whether it is a published one."""
    config = effective_recipe(load_recipe(name))
    data = config.data
    line = f"{name}: {data.dataset} {data.task}, {config.method.method}, {config.model.backbone}"
    return line if is_published(name) else f"{line} (unpublished)"


def is_published(name_or_file: str) -> bool:
    """Whether a recipe is ``METHOD-DATASET-TASK`` and its loss weights are the paper's for the task (methods that
    weigh no terms have none to be missing).
    """
    config = _published_recipe(name_or_file)
    return config is not None and method_settings(config, get_method(config.method.method)).published


def effective_recipe(config: Config) -> Config:
    """The recipe with published values filled in where it gives none."""
    config = config.with_settings({"task": task_name(config.data.task)})
    method = get_method(config.method.method)
    return effective_config(config, method, method_settings(config, method))


def to_toml(config: Config) -> str:
    """A configuration as the text of a recipe file, which `load_recipe` reads back as the same configuration."""
    return "\n".join(
        line for section, values in config.to_dict().items() for line in [*_table(section, values), ""]
    )


def _file_names() -> list[str]:
    folder = resources.files("ciss_fast.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _published_names() -> list[str]:
    """Joint training in the recipe of another task counts its scores in that task's groups of classes."""
    return [
        f"{method}-{dataset}-{task}"
        for dataset, tasks in TASKS.items()
        for method in METHODS
        for task in tasks
        if task != "joint" or method == "joint"
    ]


def _published_recipe(name: str) -> Config | None:
    """The recipe ``METHOD-DATASET-TASK``; None if ``name`` is not of this form.

    Raises `ConfigError` for a method or task that has none.
    """
    match = re.fullmatch(rf"(.+)-({'|'.join([*TASKS, *DATASET_ALIASES])})-(.+)", name.lower())
    if match is None or Path(name).is_file():
        return None
    method = get_method(match[1])
    dataset, task = DATASET_ALIASES.get(match[2], match[2]), task_name(match[3])
    if f"{method.name}-{dataset}-{task}" not in _published_names():
        tasks = [task for task in TASKS[dataset] if f"{method.name}-{dataset}-{task}" in _published_names()]
        raise ConfigError(f"--recipe: {name!r}: expected one of the tasks {', '.join(tasks)}, got {task!r}")
    settings = {"dataset": dataset, "task": task, "method": method.name, "published_for": dataset}
    return Config().with_settings({**settings, **evaluation_settings(method, dataset)})


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    """The lines of a TOML table; tables inside it come last."""
    lines = [f"[{name}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += ["", *_table(f"{name}.{_key(key)}", value)]
    return lines


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _value(value: Any) -> str:
    if value is None:  # TOML has no null; settings that may be left out read "none" as that
        return '"none"'
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)  # numbers, true, false and strings are written alike
