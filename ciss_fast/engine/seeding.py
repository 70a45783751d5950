"""Seeds: everything random in a step is a function of the run's seed and the step alone.

So a run that starts at step 3 from a checkpoint draws the same numbers as one that ran through.
"""

from __future__ import annotations

import random

import numpy as np
import torch


def step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for one step, well mixed (neighbouring seeds and steps do not give related streams)."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def seed_everything(seed: int, step: int) -> None:
    """Seed Python's, NumPy's and torch's global generators for one step."""
    value = step_seed(seed, step)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
