"""From what the user has given to every value of a run: settings left out take the method's published values."""

from __future__ import annotations

import dataclasses

import numpy as np

from ciss_fast.engine.config import Config, all_settings
from ciss_fast.engine.settings import PerStep
from ciss_fast.errors import ConfigError
from ciss_fast.methods import METHODS, Method, MethodSettings, default_settings
from ciss_fast.methods.published_runs import run_settings


def published_dataset(config: Config) -> str:
    """The name under which published values are looked up."""
    return config.method.published_for or config.data.dataset


def with_published_values(config: Config, method: Method) -> Config:
    """A copy in which every setting that is left out has the value that the method is published with."""
    published = run_settings(method, published_dataset(config), config.data.task)
    left_out = {
        field.name: published[field.name]
        for section, field, _ in all_settings()
        if field.name in published and getattr(getattr(config, section), field.name) is None
    }
    return config.with_settings(left_out)


def method_settings(config: Config, method: Method) -> MethodSettings:
    """What the method reads of a configuration, published values filled in where none are given.

    Raises `ConfigError` for the weight of a loss term that no method has.
    """
    known = {term for entry in METHODS.values() for term in entry.loss_terms}
    for term in config.method.loss_weight:
        if term not in known:
            raise ConfigError(f"--loss-weight: expected a term out of {', '.join(sorted(known))}, got {term!r}")
    published = default_settings(method.name, published_dataset(config), config.data.task)
    given = {term: weight for term, weight in config.method.loss_weight.items() if term in method.loss_terms}
    config = with_published_values(config, method)
    sections = (config.model, config.optimisation, config.method, config.replay)
    names = {field.name for field in dataclasses.fields(MethodSettings)} - {"loss_weights", "published"}
    values = {name: getattr(section, name) for section in sections for name in names if hasattr(section, name)}
    return dataclasses.replace(
        published,
        loss_weights={**published.loss_weights, **given},
        published=published.published and all(_same(published.loss_weights[term], given[term]) for term in given),
        **{name: value for name, value in values.items() if value is not None},
    )


def _same(first: PerStep | list[float], second: PerStep | list[float]) -> bool:
    """Whether two weights are equal, be they lists or tuples."""
    return np.array_equal(first, second)


def effective_config(config: Config, method: Method, settings: MethodSettings) -> Config:
    """The configuration with the method's own name, the loss weights it really uses and the published values of
    what is left out.
    """
    config = with_published_values(config, method)
    weights = {
        term: tuple(weight) if isinstance(weight, list) else weight for term, weight in settings.loss_weights.items()
    }
    return dataclasses.replace(
        config, method=dataclasses.replace(config.method, method=method.name, loss_weight=weights)
    )
