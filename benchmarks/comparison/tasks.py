"""The data sets and tasks of the comparison, and the learning rates that were tuned for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METHODS = ("fine-tuning", "mib", "alife", "alife-m", "dkd", "dkd-m")


@dataclass(frozen=True)
class Setting:
    """A data set and a task of it. ``data``: a name that `data.prepare` knows. ``recipe``: what all its runs start
    from; ``changes``: settings over it, ``changes_of`` single methods' over these. ``learning_rates``: of later steps,
    for every method the best of a `Tuning`; the recipe's where there is none. ``shares_base_with``: another setting
    whose base steps are the same.
    """

    name: str
    data: str
    recipe: str
    task: str
    seeds: tuple[int, ...]
    shares_base_with: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    changes_of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    learning_rates: Mapping[str, float] = field(default_factory=dict)

    def tuned(self, method: str, rate: float | None = None) -> dict[str, Any]:
        """The settings of a method, with the learning rate ``rate`` in later steps or else its own."""
        rate = rate or self.learning_rates.get(method)
        return {"method": method} | ({} if rate is None else {"lr_later": rate}) | dict(self.changes_of.get(method, {}))


@dataclass(frozen=True)
class Tuning:
    """Learning rates of later steps to try out on ``setting``: ``rates`` for all ``methods``, and ``beyond`` them for
    those whose best one is the lowest or the highest. The first rate's runs make the base steps, too.
    """

    setting: Setting
    rates: tuple[float, ...]
    beyond: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    methods: tuple[str, ...] = METHODS

    def pairs(self) -> Iterator[tuple[str, float]]:
        """Methods and rates, in the order they are tried out."""
        for rate in self.rates:
            yield from ((method, rate) for method in self.methods)
        for method, rates in self.beyond.items():
            yield from ((method, rate) for rate in rates)


_FOLDER = Path(__file__).parent
_VOC, _MSRC = str(_FOLDER / "voc.toml"), str(_FOLDER / "msrc.toml")

SETTINGS = (
    Setting(
        "msrc-15-6", "msrc21_320", _MSRC, "15-6", (0, 1, 2),
        learning_rates={"fine-tuning": 1e-4, "mib": 1e-3, "alife": 1e-3, "alife-m": 1e-3, "dkd": 1e-3, "dkd-m": 3e-3},
    ),
    Setting(
        "voc-15-5", "voc12part_bal320", _VOC, "15-5", (0, 1, 2),
        learning_rates={"fine-tuning": 1e-4, "mib": 1e-3, "alife": 3e-3, "alife-m": 3e-3, "dkd": 3e-3, "dkd-m": 3e-3},
    ),
    # About a hundred updates a step, of 19 to 291 images; DKD-M's memory adds a hundred to each. ALIFE-M's own stages
    # have about as many as in 15-5, too.
    Setting(
        "voc-15-1", "voc12part_bal320", _VOC, "15-1", (0,), "voc-15-5",
        {"epochs_later": "11,3,8,50,14"},
        {"dkd-m": {"epochs_later": "5,2,4,7,5"}, "alife-m": {"replay_epochs": 5, "rotation_epochs": 25}},
        {"fine-tuning": 1e-3, "mib": 3e-4, "alife": 3e-4, "alife-m": 3e-4, "dkd": 1e-3, "dkd-m": 3e-3},
    ),
)  # fmt: skip
# ALIFE-M takes ALIFE's, which is what trains its network.
_OWN_RATES = ("fine-tuning", "mib", "alife", "dkd", "dkd-m")
TUNING = (
    Tuning(Setting("msrc-tuning", "msrc21_320-base-only", _MSRC, "10-5", (0,)), (3e-4, 1e-4, 1e-3, 3e-3)),
    Tuning(
        Setting("voc-tuning", "voc12part_bal320-base-only", _VOC, "10-5", (0,)), (3e-4, 1e-3),
        {
            "fine-tuning": (1e-4, 3e-5), "mib": (3e-3,), "alife": (3e-3, 1e-2), "dkd": (3e-3, 1e-2),
            "dkd-m": (3e-3, 1e-2),
        },
        _OWN_RATES,
    ),
    # As in 15-1: about a hundred updates a step, of one class each.
    Tuning(
        Setting(
            "voc-tuning-10-1", "voc12part_bal320-base-only", _VOC, "10-1", (0,), "voc-tuning",
            {"epochs_later": "25,3,3,50,1.5"}, {"dkd-m": {"epochs_later": "6,2,2,7,1"}},
        ),
        (3e-4, 1e-3),
        {"mib": (1e-4,), "alife": (1e-4,), "dkd": (3e-3,), "dkd-m": (3e-3,)},
        _OWN_RATES,
    ),
)  # fmt: skip
QUICK_SETTINGS = (
    Setting("shapes-6-3", "shapes", "demo", "6-3", (0, 1)),
    Setting("shapes-6-1", "shapes", "demo", "6-1", (0,), shares_base_with="shapes-6-3"),
)
