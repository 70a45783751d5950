"""The compiled library, or the reason why it is missing. Importing this module never fails.

Environment variable ``CISS_FAST_DISABLE_NATIVE=1``: leave the library alone although it is there, so that the
reference implementations serve (read once, at import).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

# torch first: the library uses the OpenMP threads torch has brought along. Loaded in the other order it could
# bring a second libgomp, and two pools of waiting threads slow each other down.
import torch  # noqa: F401

_NAME = "ciss_fast._native"


def _load() -> tuple[ModuleType | None, str | None]:
    if os.environ.get("CISS_FAST_DISABLE_NATIVE", "0") not in ("", "0"):
        return None, "switched off by the environment variable CISS_FAST_DISABLE_NATIVE"
    try:
        return importlib.import_module(_NAME), None
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            return None, f"cannot be loaded: {error}"
        return None, "not part of this installation (installed with CISS_FAST_NATIVE=0, or not built)"
    except ImportError as error:
        return None, f"cannot be loaded: {error}"


library: ModuleType | None
"""The extension module ``ciss_fast._native``, or None."""
unavailable_reason: str | None
"""Why `library` is None, in one line; None when it is there."""
library, unavailable_reason = _load()


def reason_without(name: str) -> str | None:
    """Why the library's function ``name`` cannot be called, in one line; None where it can."""
    if library is not None and not hasattr(library, name):
        return f"the native library has no {name}: it was built from older sources"
    return unavailable_reason


def function(name: str) -> Callable[..., Any]:
    """The library's function of the operator ``ciss_fast::name``; RuntimeError, with the reason, without it."""
    if library is None or not hasattr(library, name):
        raise RuntimeError(f"ciss_fast::{name} needs the native library: {reason_without(name)}")
    return getattr(library, name)
