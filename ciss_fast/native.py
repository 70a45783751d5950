"""The compiled library, or the reason why it is missing. Importing this module never fails.

Environment variable ``CISS_FAST_DISABLE_NATIVE=1``: leave the library alone although it is there, so that the
reference implementations serve (read once, at import).
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

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
