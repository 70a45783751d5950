"""For checks of Triton kernels: the inputs and comparisons of a folder's tests, and fresh memory full of NaN."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch


def conftest_of(file: str) -> ModuleType:
    """The module ``conftest.py`` beside ``file``: its plain functions are of use outside pytest too."""
    path = Path(file).with_name("conftest.py")
    specification = importlib.util.spec_from_file_location(f"{path.parent.name}_conftest", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """Arrays of a golden file; skips without a folder of them, as the fixture ``shared_folder`` does."""
    variable = os.environ.get("CISS_FAST_SHARED")
    folder = Path(variable) if variable else Path(__file__).resolve().parents[3] / "shared"
    if not folder.is_dir() and not variable:
        pytest.skip(f"no folder of golden data at {folder} (CISS_FAST_SHARED names another place)")
    with np.load(folder / "golden" / name) as arrays:
        return dict(arrays)


def fill_fresh_memory(device: torch.device) -> None:
    """From now on, tensors torch makes without initialising them are full of NaN (integers: of the largest number).

    On a GPU nothing is done: torch would refuse operations of the definition that are not deterministic there.
    """
    if device.type == "cpu":
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.use_deterministic_algorithms(True)
