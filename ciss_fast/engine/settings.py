"""Typed settings: how one field is declared, converted and checked, wherever its value comes from.

A value may come from the command line (a string), a recipe file (TOML or JSON types) or Python. All three go
through `convert`, so that each is checked alike and each mistake is reported in one line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from ciss_fast.errors import ConfigError

PerStep = float | tuple[float, ...]
"""One number for every later step, or one number for each of them (step 1, step 2, ...)."""

Affects = Literal["base", "later", "nothing"]


def option(
    default: Any,
    help: str,  # noqa: A002 - the word argparse uses
    *,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    affects: Affects = "base",
    published: bool = False,
) -> Any:
    """A dataclass field with its help text and its limits.

    ``affects`` says what a change of the value changes: ``"base"`` the base step and so everything after it,
    ``"later"`` the later steps only (runs that differ in it may share a base step), ``"nothing"`` no result
    at all (where files go, how progress is shown), so that a run may be continued with another value.

    ``published`` with the default None: left out, it takes the value that the method is published with, if the
    method reads it (`ciss_fast.methods.published_runs`).
    """
    metadata = {
        "help": help, "choices": choices, "minimum": minimum, "above": above, "affects": affects,
        "published": published,
    }  # fmt: skip
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def field_types(section: type) -> dict[str, Any]:
    """The resolved type of every field of a settings dataclass, by name."""
    return typing.get_type_hints(section)


def convert(field: dataclasses.Field[Any], declared: Any, value: Any, source: str) -> Any:
    """``value`` as the type ``declared``, checked against the limits of ``field``.

    Raises `ConfigError` naming ``source`` (an option such as ``--lr-base`` or a place in a recipe).
    """
    try:
        converted = _convert(declared, value)
    except (ValueError, TypeError):
        raise ConfigError(f"{source}: expected {_describe(declared)}, got {value!r}") from None
    choices = field.metadata["choices"]
    if choices is not None and converted is not None and converted not in choices:
        raise ConfigError(f"{source}: expected one of {', '.join(choices)}, got {value!r}")
    for number in converted if isinstance(converted, tuple) else (converted,):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            _check_limits(field, number, value, source)
    return converted


def _check_limits(field: dataclasses.Field[Any], number: float, value: Any, source: str) -> None:
    minimum, above = field.metadata["minimum"], field.metadata["above"]
    if not math.isfinite(number):
        raise ConfigError(f"{source}: expected a finite number, got {value!r}")
    if minimum is not None and number < minimum:
        raise ConfigError(f"{source}: expected at least {minimum}, got {value!r}")
    if above is not None and number <= above:
        raise ConfigError(f"{source}: expected more than {above}, got {value!r}")


def _convert(declared: Any, value: Any) -> Any:
    options = _alternatives(declared)
    if type(None) in options and (value is None or value in ("none", "")):
        return None
    if _is_tuple(options):
        return _convert_tuple(options, value)
    if set(options) == {int, str}:
        return _id_or_name(value)
    (kind,) = [option for option in options if option is not type(None)]
    if kind is bool:
        return _convert_bool(value)
    if typing.get_origin(kind) is dict:
        return _convert_table(typing.get_args(kind)[1], value)
    if isinstance(value, bool) or (kind is not str and not isinstance(value, (int, float, str))):
        raise TypeError
    if kind is str:
        if not isinstance(value, str):
            raise TypeError
        return value
    if kind is int and isinstance(value, float):
        if not value.is_integer():
            raise ValueError
        return int(value)
    return kind(value)


def _id_or_name(value: Any) -> int | str:
    try:
        return _convert(int, value)
    except ValueError:
        return _convert(str, value)


def _convert_tuple(options: tuple[Any, ...], value: Any) -> Any:
    (tuple_type,) = [option for option in options if typing.get_origin(option) is tuple]
    item = typing.get_args(tuple_type)[0]
    scalar_allowed = item in options
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        if scalar_allowed and len(parts) == 1:
            return _convert(item, parts[0])
        return tuple(_convert(item, part) for part in parts)
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError
        return tuple(_convert(item, part) for part in value)
    if not scalar_allowed:
        raise TypeError
    return _convert(item, value)


def _convert_table(declared: Any, value: Any) -> dict[str, Any]:
    """From a table, or from the command line's list of ``name=value``."""
    if isinstance(value, Mapping):
        items = list(value.items())
    else:
        items = [entry.split("=", 1) for entry in value]
    if declared is Any:
        return {str(name): _guess(entry) for name, entry in items}
    return {str(name): _convert(declared, entry) for name, entry in items}


def _guess(value: Any) -> Any:
    """A number or true/false where the text looks like one."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _convert_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError


def _alternatives(declared: Any) -> tuple[Any, ...]:
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        return typing.get_args(declared)
    return (declared,)


def _is_tuple(options: tuple[Any, ...]) -> bool:
    return any(typing.get_origin(option) is tuple for option in options)


def _describe(declared: Any) -> str:
    options = _alternatives(declared)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    parts = []
    for option in options:
        if option is type(None):
            parts.append("none")
        elif typing.get_origin(option) is tuple:
            item = typing.get_args(option)[0]
            item = {int: "whole numbers", float: "numbers", int | str: "ids or names"}.get(item, "values")
            parts.append(f"{item} separated by commas")
        elif typing.get_origin(option) is dict:
            values = typing.get_args(option)[1]
            parts.append("name=value" if values is Any else f"name=value with {_describe(values)}")
        else:
            parts.append(names.get(option, str(option)))
    return " or ".join(parts)


def at_step(value: PerStep, step: int, name: str) -> float:
    """The value of a per-step setting at a later step (``step >= 1``).

    Raises `ConfigError` if a list was given and it has no entry for this step.
    """
    if not isinstance(value, tuple):
        return value
    if step > len(value):
        raise ConfigError(
            f"{name}: expected one value, or one for each later step, got {len(value)} "
            f"values but there is a step {step}"
        )
    return value[step - 1]
