"""The README's first example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import torch


def test_first_example_runs(repository: Path) -> None:
    (code, *_) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) == 5
    names: dict = {}
    exec(code, names)
    assert torch.isfinite(names["total"])
    assert names["student"].grad.abs().sum() > 0
