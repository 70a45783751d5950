"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
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


STEPS_OF_WRITTEN_RUNS = [7, 3, 3]
CLASS_NAMES = ["background", *(f"class {number}" for number in range(1, 13))]


def random_confusions():
    """A confusion matrix after each step of a written run."""
    random = np.random.default_rng(7)
    counts = np.cumsum(STEPS_OF_WRITTEN_RUNS)
    return [random.integers(1, 9, (count, count)) + 50 * np.eye(count, dtype=int) for count in counts]


def metrics_of_steps(better, terms=()):
    """Entries of ``metrics.json`` that follow from random confusion matrices."""
    from ciss_fast.engine.metrics import compute_scores

    entries = []
    for step, confusion in enumerate(random_confusions()):
        groups = STEPS_OF_WRITTEN_RUNS[: step + 1]
        count = sum(groups)
        scores = compute_scores(confusion, groups)
        summary = scores.summary() | {"miou_all": scores.all + better}
        logged = {"learning_rate": 0.1, **dict.fromkeys(terms, 0.5)}
        log = [{"iteration": i, "loss": 1 / (1 + i), **logged} for i in range(5)]
        entries.append(
            {"step": step, "new_classes": CLASS_NAMES[count - groups[-1] : count], "stages": [],
             "training_images": 40, "test_images": 8, "iterations": 5,
             "seconds_training": 2.0, "seconds_testing": 1.0, "peak_memory_bytes": 2**30, **summary,
             "iou": dict(zip(CLASS_NAMES[:count], scores.iou, strict=True)), "loss_log": log}
        )  # fmt: skip
    return entries


@pytest.fixture
def written_run(tmp_path):
    """A function that writes a run's folder as training leaves it, without checkpoints."""
    from ciss_fast.engine.config import Config
    from ciss_fast.engine.metrics import run_scores
    from ciss_fast.engine.results import ResultsFolder

    def write(name, *, better=0.0, task="6-3", steps=3, previews=2, terms=(), **settings):
        config, entries = Config().with_settings({"task": task, **settings}), metrics_of_steps(better, terms)[:steps]
        folder = ResultsFolder(tmp_path / name)
        folder.claim(config)
        folder.write_metrics(
            {"dataset": "shapes", "class_names": CLASS_NAMES, "task": task, "setting": "overlapped", "method": "alife",
             "seed": config.run.seed, "num_steps": 3, "steps": entries, **run_scores(entries)}
        )  # fmt: skip
        images = [np.full((12, 16, 3), 40 * i, dtype=np.uint8) for i in range(previews)]
        maps = [np.full((12, 16), i, dtype=np.uint8) for i in range(previews)]
        for entry, confusion in zip(entries, random_confusions(), strict=False):
            folder.write_evaluation(entry["step"], confusion, maps)
        if previews:
            folder.write_preview_images(images, maps)
        return folder.path

    return write
