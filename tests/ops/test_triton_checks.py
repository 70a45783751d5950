"""The checks of all ops' Triton kernels (see triton_testing.py): in the interpreter, and on a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from triton_testing import FILES, checks_of, interpreted, judge, on_gpu

CASES = [
    pytest.param(file, name, id=f"{file.parent.name}-{name}", marks=[pytest.mark.slow] if slow else [])
    for file in FILES
    for slow in (False, True)
    for name in checks_of(file, slow=slow)
]


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> dict[tuple[Path, str], str]:
    """Outcomes of the checks that are to run in the interpreter; starting its process takes seconds, so one has all."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    chosen = [item for item in request.session.items if getattr(item, "originalname", "") == "test_in_the_interpreter"]
    return interpreted((item.callspec.params["file"], item.callspec.params["name"]) for item in chosen)


@pytest.mark.parametrize(("file", "name"), CASES)
def test_in_the_interpreter(outcomes: dict[tuple[Path, str], str], file: Path, name: str) -> None:
    judge(outcomes[file, name])


@pytest.mark.gpu
@pytest.mark.parametrize(("file", "name"), CASES)
def test_on_a_gpu(file: Path, name: str) -> None:
    on_gpu(file, name)
