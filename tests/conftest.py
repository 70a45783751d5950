"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ciss_fast import triton_runtime

REPOSITORY = Path(__file__).resolve().parents[1]
MOST_THREADS = 2


def pytest_configure(config: pytest.Config) -> None:
    """Many threads on small tensors wait for one another more than they compute; so do those of several processes."""
    config.addinivalue_line(
        "markers",
        "gpu(interpreter=False): needs a GPU; skipped without one, or failed where CISS_FAST_REQUIRE_GPU=1. With "
        "interpreter=True it runs on the CPU as well where triton interprets (TRITON_INTERPRET=1)",
    )
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    threads = min(MOST_THREADS, max(1, torch.get_num_threads() // processes))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``gpu`` need one."""
    marker = item.get_closest_marker("gpu")
    if marker is None or torch.cuda.is_available():
        return
    if marker.kwargs.get("interpreter", False) and triton_runtime.interpreting():
        return
    if os.environ.get("CISS_FAST_REQUIRE_GPU", "0") not in ("", "0"):
        pytest.fail("no GPU, and CISS_FAST_REQUIRE_GPU asks for one", pytrace=False)
    pytest.skip("no GPU")


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    """Sums depend on the number of threads, so no test may leave another number behind."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Folder of golden values and real images that are too large for the repository.

    Environment variable CISS_FAST_SHARED, by default ``../shared`` beside the source tree. A test that needs
    it is skipped where it is absent, but fails where the variable names a folder that is not there.
    """
    variable = os.environ.get("CISS_FAST_SHARED")
    folder = Path(variable) if variable else REPOSITORY.parent / "shared"
    if not folder.is_dir():
        if variable:
            pytest.fail(f"CISS_FAST_SHARED={variable} is not a folder")
        pytest.skip(f"no folder of golden data at {folder} (CISS_FAST_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def shared_file(shared_folder: Path) -> Callable[[str], Path]:
    """Function from a path inside `shared_folder` to the file, which must be there once the folder is."""

    def find(name: str) -> Path:
        path = shared_folder / name
        if not path.is_file():
            pytest.fail(f"{path} is missing")
        return path

    return find
