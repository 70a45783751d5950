"""What is run: methods, seeds, ablations, each a results folder with its settings over a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ciss_fast.engine.config import all_settings
from ciss_fast.methods import get_method

from .ablations import ABLATIONS, ARITHMETIC, ARITHMETIC_GROUP, EXPLANATIONS
from .tasks import METHODS, Setting, Tuning

FAMILY_BASES = {"softmax": "fine-tuning", "sigmoid": "dkd"}
"""Whose base step the other methods of a head family start from."""


@dataclass(frozen=True)
class Experiment:
    """A run. ``name``: its results folder; ``group``: the part of the page it belongs to; ``base``: the experiment
    whose base step it takes over; ``environment``: variables beside its settings."""

    name: str
    group: str
    setting: Setting
    seed: int
    settings: Mapping[str, Any]
    base: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def done_mark(name: str, output: Path) -> Path:
    """The file that says that an experiment is finished."""
    return output / name / "done"


def is_done(experiment: Experiment, output: Path) -> bool:
    """Whether an experiment is finished."""
    return done_mark(experiment.name, output).exists()


def comparison(setting: Setting) -> Iterator[Experiment]:
    """Every method and joint training, seed by seed."""
    joint = () if setting.shares_base_with else ("joint",)  # does not depend on the task
    for seed in setting.seeds:
        for method in (*METHODS, *joint):
            name = f"{setting.name}/{method}-seed{seed}"
            base = None if method == "joint" else _base(setting, method, seed)
            yield Experiment(name, setting.name, setting, seed, setting.tuned(method), base if base != name else None)


def _base(setting: Setting, method: str, seed: int) -> str:
    folder = setting.shares_base_with or setting.name
    return f"{folder}/{FAMILY_BASES[get_method(method).prediction_kind]}-seed{seed}"


def ablations(setting: Setting) -> Iterator[Experiment]:
    """Parts of ALIFE, ALIFE-M and DKD switched off; ALIFE in other arithmetic."""
    for seed in setting.seeds:
        for name, (method, settings) in ABLATIONS.items():
            yield _changed(setting, "-ablations", name, seed, method, settings)
    for name, (settings, environment) in ARITHMETIC.items():
        yield _changed(setting, ARITHMETIC_GROUP, name, setting.seeds[0], "alife", settings, environment)


def explanations(setting: Setting) -> Iterator[Experiment]:
    """What may explain a result of the comparison."""
    for name, (method, settings) in EXPLANATIONS.get(setting.name, {}).items():
        yield _changed(setting, "-explanations", name, setting.seeds[0], method, settings)


def _changed(
    setting: Setting,
    part: str,
    name: str,
    seed: int,
    method: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Experiment:
    changes_base = any(entry.metadata["affects"] == "base" for _, entry, _ in all_settings() if entry.name in settings)
    return Experiment(
        f"{setting.name}{part}/{name}-seed{seed}",
        f"{setting.name}{part}",
        setting,
        seed,
        {**setting.tuned(method), **settings},
        None if changes_base else _base(setting, method, seed),
        environment,
    )


def tuning(candidates: Tuning) -> Iterator[Experiment]:
    """Learning rates of later steps for every method, on the base classes' training images alone."""
    setting = candidates.setting
    for method, rate in candidates.pairs():
        name = f"{setting.name}/{method}-{rate:g}"
        family = FAMILY_BASES[get_method(method).prediction_kind]
        base = f"{setting.shares_base_with or setting.name}/{family}-{candidates.rates[0]:g}"
        yield Experiment(
            name, setting.name, setting, setting.seeds[0], setting.tuned(method, rate), base if base != name else None,
        )  # fmt: skip


def all_experiments(settings: Sequence[Setting], ablated: str, tunings: Sequence[Tuning]) -> list[Experiment]:
    """Those of ``tunings`` and ``settings``, bases before what needs them; ``ablated``: the setting the ablations are
    for.
    """
    experiments = [one for candidates in tunings for one in tuning(candidates)]
    for setting in settings:
        experiments += comparison(setting)
        if setting.name == ablated:
            experiments += ablations(setting)
        experiments += explanations(setting)
    return experiments
