"""Incremental methods: which losses, what is frozen, how new classifiers start, which optimiser groups."""

from __future__ import annotations

from ..errors import ConfigError
from .alife import ALIFE
from .alife_m import ALIFEM
from .dkd import DKD, DKDM
from .fine_tuning import FineTuning
from .joint import Joint
from .method import Method
from .mib import MiB
from .published import default_settings
from .settings import MethodSettings
from .stage import TRAIN, Stage

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (FineTuning, Joint, MiB, ALIFE, ALIFEM, DKD, DKDM)
}
ALIASES = {"ft": "fine-tuning"}

__all__ = [
    "ALIASES",
    "ALIFE",
    "ALIFEM",
    "DKD",
    "DKDM",
    "METHODS",
    "TRAIN",
    "FineTuning",
    "Joint",
    "Method",
    "MethodSettings",
    "MiB",
    "Stage",
    "default_settings",
    "get_method",
]


def get_method(name: str) -> Method:
    """The method of that name or alias, in upper or lower case.

    Raises `ConfigError` listing the known ones.
    """
    key = ALIASES.get(name.lower(), name.lower())
    if key not in METHODS:
        raise ConfigError(f"method: unknown name {name!r}, known: {', '.join([*METHODS, *ALIASES])}")
    return METHODS[key]()
