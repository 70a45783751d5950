"""Seeds: everything random in a step is a function of the run's seed and the step alone.

So a run that starts at step 3 from a checkpoint draws the same numbers as one that ran through.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

# Random streams of a step beside that of its training: the crops that features are taken from, those of the
# stages that replay them, and the choice of images to replay.
EXTRACTION, REPLAY, SELECTION = 1, 2, 3
# And, from this number on, that of every process but the first, whose dropout must not be the same.
PROCESSES = 1000


def step_seed(seed: int, step: int, stream: int = 0) -> int:
    """A 63-bit seed for one step, well mixed (neighbouring seeds and steps do not give related streams).

    ``stream``: 0 for the step's training, other numbers for what is to be independent of it.
    """
    entropy = (seed, step, stream) if stream else (seed, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def seed_everything(seed: int, step: int, process: int = 0) -> None:
    """Seed Python's, NumPy's and torch's global generators for one step in one of the processes."""
    value = step_seed(seed, step, PROCESSES + process if process else 0)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's global generators (all GPUs' too), in types that a checkpoint
    holds.
    """
    numpy_state = np.random.get_state(legacy=False)
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`. With another number of GPUs than there, theirs stay as they are."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = state["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
