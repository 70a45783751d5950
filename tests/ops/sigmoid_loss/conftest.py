"""The sigmoid loss for the tests of this folder: see `loss_testing`.

Where there is no compiled kernel, tests that compare with double precision try the definition in single precision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_testing import SIGMOID, Inputs, Result, skip_without_kernel
from torch import Tensor


def logits_of(arrays: dict[str, np.ndarray], dtype: torch.dtype) -> Inputs:
    """Student, teacher (None at the base step) and label of a golden file, the logits made in ``dtype``."""
    label = torch.from_numpy(arrays["label"])
    if "student" in arrays:
        return Inputs(torch.from_numpy(arrays["student"]).to(dtype), None, label)

    def classify(feature: str, weight: str, bias: str) -> Tensor:
        f, w, b = (torch.from_numpy(arrays[name]).to(dtype) for name in (feature, weight, bias))
        return torch.nn.functional.conv2d(f, w[:, :, None, None], b)

    auxiliary = classify("feature", "weight_aux", "bias_aux")
    student = torch.cat([auxiliary, classify("feature", "weight", "bias")], dim=1)
    old = classify("feature_old", "weight_old", "bias_old")
    return Inputs(student, torch.cat([torch.full_like(auxiliary, torch.nan), old], dim=1), label)


@pytest.fixture(scope="session")
def sigmoid_inputs() -> Callable[..., Inputs]:
    """Function that draws student, teacher and label: see `LossUnderTest.draw`. The teacher's channel 0 is NaN."""
    return SIGMOID.draw


@pytest.fixture(scope="session")
def sigmoid_evaluate() -> Callable[..., Result]:
    """Function from inputs and options to total, terms and gradient: see `LossUnderTest.evaluate`."""
    return SIGMOID.evaluate


@pytest.fixture(scope="session")
def sigmoid_define() -> Callable[..., Result]:
    """The same from the definition in double precision: see `LossUnderTest.define`."""
    return SIGMOID.define


@pytest.fixture(scope="session")
def sigmoid_matches() -> Callable[..., tuple[Result, Result]]:
    """Function that compares with the definition in double precision: see `LossUnderTest.matches`."""
    return SIGMOID.matches


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend by name; the compiled one is skipped where it is missing."""
    if request.param == "cpu":
        skip_without_kernel(SIGMOID)
    return request.param


@pytest.fixture(scope="session")
def needs_kernel() -> None:
    """Skips where there is no compiled kernel."""
    skip_without_kernel(SIGMOID)


@pytest.fixture(scope="session")
def golden(shared_file: Callable[[str], Path]) -> Callable[[str], dict[str, np.ndarray]]:
    """Function from a golden file's name to its arrays, read once."""
    read: dict[str, dict[str, np.ndarray]] = {}

    def load(name: str) -> dict[str, np.ndarray]:
        if name not in read:
            with np.load(shared_file(f"golden/{name}")) as arrays:
                read[name] = dict(arrays)
        return read[name]

    return load


@pytest.fixture(scope="session")
def golden_logits() -> Callable[..., Inputs]:
    """Function from the arrays of a golden file to inputs of the op: see `logits_of`."""
    return logits_of
