"""How long an experiment will take: a few iterations of each of its stages are tried out.

``python -m benchmarks.comparison.estimate JSON``, with the recipe, the settings and whether another run's base step is
taken over, prints seconds. A process of its own, so that the experiment's environment counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ciss_fast.errors import CissFastError

from .experiments import Experiment


def seconds_of(experiment: Experiment, settings: Mapping[str, Any]) -> float:
    """The time that all of an experiment takes with ``settings`` (its own, its data's and its task), base step left out
    where it is another's. Raises `CissFastError` where it cannot be tried out.
    """
    wanted = {
        "recipe": experiment.setting.recipe, "settings": dict(settings), "base_done": experiment.base is not None,
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.comparison.estimate", json.dumps(wanted)],
        env={**os.environ, **experiment.environment},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        reason = (result.stderr.strip() or "it ended without a word").splitlines()[-1]
        raise CissFastError(f"{experiment.name}: cannot be tried out: {reason}")
    return float(result.stdout)


def main() -> None:
    """See the module."""
    from ciss_fast.engine.dry_run import dry_run
    from ciss_fast.engine.progress import Reporter
    from ciss_fast.engine.recipes import load_recipe

    wanted = json.loads(sys.argv[1])
    config = load_recipe(wanted["recipe"]).with_settings(wanted["settings"])
    clock = dry_run(config, Reporter(silent=True))
    if wanted["base_done"]:
        clock.skip(0, "train")
    print(clock.seconds_left() or 0.0)


if __name__ == "__main__":
    main()
