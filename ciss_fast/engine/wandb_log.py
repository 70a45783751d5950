"""Curves for Weights & Biases, by option; the package wandb is imported only then.

``WANDB_MODE=offline`` keeps everything in the results folder, to be sent later with ``wandb sync``.
"""

from __future__ import annotations

import uuid
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

from ciss_fast.atomic_files import atomic_write_text
from ciss_fast.engine.config import Config
from ciss_fast.errors import ConfigError

AXIS = "iteration"
ID_FILE = "wandb_id.txt"


def check_wandb(config: Config) -> None:
    """Raise `ConfigError` if W&B is asked for and its package cannot be imported."""
    if config.run.wandb:
        _package()


class WandbLog:
    """A run at W&B while the context is open; where it is not asked for, nothing.

    An interrupted run goes on under the id that the results folder keeps. What fails after the start is a warning.

    Args:
        config: of the run; its settings are shown at W&B.
        folder: the results folder.
        first_process: the others send nothing.
    """

    def __init__(self, config: Config, folder: Path, *, first_process: bool = True) -> None:
        self.config, self.folder = config, folder
        self.wanted = config.run.wandb and first_process
        self._run: Any = None

    def __enter__(self) -> WandbLog:
        if self.wanted:
            package = _package()
            try:
                self._run = package.init(
                    project=self.config.run.wandb_project,
                    name=self.folder.resolve().name,
                    id=self._id(),
                    resume="allow",
                    dir=str(self.folder),
                    config=self.config.to_dict(),
                )
                # Curves over iterations, not over calls: what an interrupted run sends again has its old place.
                self._run.define_metric(AXIS)
                self._run.define_metric("*", step_metric=AXIS)
            except OSError:
                raise
            except Exception as error:
                raise ConfigError(
                    f"--wandb: cannot start: {_one_line(error)} (WANDB_MODE=offline needs neither account nor network)"
                ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._run is not None:
            self._try(lambda run: run.finish(exit_code=0 if error is None else 1))

    def add(self, scalars: dict[str, float], at: int) -> None:
        """Values by name at an iteration, counted from the run's beginning."""
        self._try(lambda run: run.log({**scalars, AXIS: at}))

    def _try(self, action: Any) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            warnings.warn(f"--wandb: nothing more is sent: {_one_line(error)}", stacklevel=2)

    def _id(self) -> str:
        path = self.folder / ID_FILE
        if not path.is_file():
            atomic_write_text(path, uuid.uuid4().hex[:12] + "\n")
        return path.read_text("utf-8").strip()


def _package() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(f"--wandb: expected the package wandb (pip install wandb), got {_one_line(error)}") from None
    return wandb


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
