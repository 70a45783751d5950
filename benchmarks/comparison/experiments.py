"""What is run: methods, seeds, ablations, each a results folder with its settings over a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ciss_fast.methods import get_method

LEARNING_RATES_LATER = {
    "fine-tuning": 1e-4, "mib": 1e-3, "alife": 1e-3, "alife-m": 1e-3, "dkd": 1e-3, "dkd-m": 3e-3,
}  # fmt: skip
"""Of later steps: for every method the best hIoU of `tuning`, for both data sets."""
METHODS = tuple(LEARNING_RATES_LATER)
FAMILY_BASES = {"softmax": "fine-tuning", "sigmoid": "dkd"}
"""Whose base step the other methods of a head family start from."""


@dataclass(frozen=True)
class Setting:
    """A data set and a task of it. ``data``: a name that `data.prepare` knows. ``recipe``: what all its runs start
    from; ``changes``: settings over it, ``changes_of`` single methods' over these. ``shares_base_with``: another
    setting whose base steps are the same."""

    name: str
    data: str
    recipe: str
    task: str
    seeds: tuple[int, ...]
    shares_base_with: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    changes_of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_FOLDER = Path(__file__).parent
_VOC, _MSRC = str(_FOLDER / "voc.toml"), str(_FOLDER / "msrc.toml")
SETTINGS = (
    Setting("msrc-15-6", "msrc21_320", _MSRC, "15-6", (0, 1, 2)),
    Setting("voc-15-5", "voc12part_bal320", _VOC, "15-5", (0,)),
    # About a hundred updates a step, of 19 to 291 images; DKD-M's memory adds a hundred to each.
    Setting(
        "voc-15-1", "voc12part_bal320", _VOC, "15-1", (0,), "voc-15-5",
        {"epochs_later": "11,3,8,50,14"}, {"dkd-m": {"epochs_later": "5,2,4,7,5"}},
    ),
)  # fmt: skip
TUNING = (Setting("msrc-tuning", "msrc21_320-base-only", _MSRC, "10-5", (0,)),)
LEARNING_RATES = (3e-4, 1e-4, 1e-3, 3e-3)
"""The first one's runs make the base steps, too."""
QUICK_SETTINGS = (
    Setting("shapes-6-3", "shapes", "demo", "6-3", (0, 1)),
    Setting("shapes-6-1", "shapes", "demo", "6-1", (0,), shares_base_with="shapes-6-3"),
)


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


def comparison(setting: Setting) -> Iterator[Experiment]:
    """Every method and joint training, seed by seed."""
    joint = () if setting.shares_base_with else ("joint",)  # does not depend on the task
    for seed in setting.seeds:
        for method in (*METHODS, *joint):
            name = f"{setting.name}/{method}-seed{seed}"
            base = None if method == "joint" else _base(setting, method, seed)
            settings = {**_tuned(method), **setting.changes_of.get(method, {})}
            yield Experiment(name, setting.name, setting, seed, settings, base if base != name else None)


def _tuned(method: str) -> dict[str, Any]:
    return {"method": method} | ({"lr_later": LEARNING_RATES_LATER[method]} if method in LEARNING_RATES_LATER else {})


def _base(setting: Setting, method: str, seed: int) -> str:
    folder = setting.shares_base_with or setting.name
    return f"{folder}/{FAMILY_BASES[get_method(method).prediction_kind]}-seed{seed}"


NO_DKD = {"dkd_pos": 0, "dkd_neg": 0}
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "alife-ce": ("alife", {"loss_weight": {"ali": 0, "kd": 0}}),
    "alife-ce-kd": ("alife", {"loss_weight": {"ali": 0}}),
    "alife-ce-ali": ("alife", {"loss_weight": {"kd": 0}}),
    "alife-cce-ckd": ("alife", {"loss_weight": {"ali": 0}, "unbiased_terms": True}),
    "alife-cce-ckd-ali": ("alife", {"unbiased_terms": True}),
    "alife-m-without-memory": ("alife-m", {"feature_replay": "none"}),
    "alife-m-without-rotation": ("alife-m", {"feature_replay": "unrotated"}),
    "dkd-kd": ("dkd", {"loss_weight": {**NO_DKD, "ac": 0}, "new_classifier_start": "random"}),
    "dkd-kd-dkd": ("dkd", {"loss_weight": {"ac": 0}, "new_classifier_start": "random"}),
    # An epoch of the last stage is 24 iterations here, 89 with the published sizes of VOC 15-5.
    "alife-m-replay-10-epochs": ("alife-m", {"replay_epochs": 10}),
    # VOC 15-5's published weight; other data have 1.
    "alife-m-memory-10": ("alife-m", {"loss_weight": {"memory": 10}}),
    # At the rate that is best for the four others.
    "fine-tuning-0.001": ("fine-tuning", {"lr_later": 1e-3}),
    "dkd-m-0.001": ("dkd-m", {"lr_later": 1e-3}),
    # Between the two rates of the tuning that keep everything old and learn everything new.
    "dkd-0.002": ("dkd", {"lr_later": 2e-3}),
}
"""By name: the method and what is changed. What is complete is in the comparison."""

ARITHMETIC_GROUP = "-arithmetic"
ARITHMETIC: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "alife-fp32": ({"precision": "fp32"}, {}),
    "alife-reference-losses": ({}, {"CISS_FAST_BACKEND": "reference"}),
}
"""ALIFE in single precision, and with the losses in plain PyTorch: settings and environment."""


def ablations(setting: Setting) -> Iterator[Experiment]:
    """Parts of ALIFE, ALIFE-M and DKD switched off; ALIFE in other arithmetic. The first seed only."""
    seed = setting.seeds[0]
    for name, (method, settings) in ABLATIONS.items():
        yield Experiment(
            f"{setting.name}-ablations/{name}",
            f"{setting.name}-ablations",
            setting,
            seed,
            {**_tuned(method), **settings},
            _base(setting, method, seed),
        )
    for name, (settings, environment) in ARITHMETIC.items():
        yield Experiment(
            f"{setting.name}{ARITHMETIC_GROUP}/{name}",
            f"{setting.name}{ARITHMETIC_GROUP}",
            setting,
            seed,
            {**_tuned("alife"), **settings},
            None if settings else _base(setting, "alife", seed),  # a base step in other precision is another one
            environment,
        )


def tuning(setting: Setting) -> Iterator[Experiment]:
    """Learning rates of later steps for every method, on the base classes' training images alone."""
    for rate in LEARNING_RATES:
        for method in METHODS:
            name = f"{setting.name}/{method}-{rate:g}"
            family = FAMILY_BASES[get_method(method).prediction_kind]
            base = f"{setting.name}/{family}-{LEARNING_RATES[0]:g}"
            yield Experiment(
                name, setting.name, setting, 0, {"method": method, "lr_later": rate}, base if base != name else None
            )


def all_experiments(settings: Sequence[Setting], ablated: str) -> list[Experiment]:
    """Those of ``settings``, in an order in which bases come first; ``ablated``: the setting the ablations are for."""
    experiments = []
    for setting in settings:
        experiments += comparison(setting)
        if setting.name == ablated:
            experiments += ablations(setting)
    return experiments
