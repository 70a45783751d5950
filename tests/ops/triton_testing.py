"""Checks of Triton kernels, run through the interpreter without a GPU, and on a GPU where there is one.

A file of checks is a module ``<op>_triton_checks.py`` of this folder's subfolders whose functions ``check_...(device)``
raise where something is wrong; ``slow_check_...`` are left to ``-m slow``. `interpreted` runs them in one process in
which triton interprets, on CPU tensors; the same functions run on a GPU in the test's own process.
test_triton_checks.py makes tests of all of them.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ciss_fast import triton_runtime

FILES = sorted(Path(__file__).parent.glob("*/*_triton_checks.py"))
"""All files of checks."""

_PREFIX, _SLOW_PREFIX = "check_", "slow_check_"
_RESULTS = "results of the checks: "
_SKIPPED = "skipped: "


def checks_of(file: Path, *, slow: bool = False) -> list[str]:
    """Names of the checks in ``file`` (the slow ones alone, or the others) as functions; the file is not imported."""
    functions = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [name for name in functions if name.startswith(_SLOW_PREFIX if slow else _PREFIX)]


def interpreted(chosen: Iterable[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """Run checks in an interpreter's process: what each raised, or why it was skipped; empty where it passed."""
    chosen = list(chosen)
    here = Path(__file__).resolve().parent
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here))),
    }
    names = [f"{file}::{name}" for file, name in chosen]
    finished = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *names], env=environment, capture_output=True, text=True
    )
    lines = [line for line in finished.stdout.splitlines() if line.startswith(_RESULTS)]
    if not lines:
        pytest.fail(f"the interpreter's process ended early:\n{finished.stderr[-4000:]}", pytrace=False)
    return dict(zip(chosen, json.loads(lines[0].removeprefix(_RESULTS)), strict=True))


def judge(outcome: str) -> None:
    """Fail or skip the test whose check had this outcome."""
    if outcome.startswith(_SKIPPED):
        pytest.skip(outcome.removeprefix(_SKIPPED))
    if outcome:
        pytest.fail(outcome, pytrace=False)


def on_gpu(file: Path, name: str) -> None:
    """Run check ``name`` of ``file`` on the GPU."""
    reason = triton_runtime.reason_without()
    if reason is not None:
        pytest.skip(reason)
    getattr(_load(file), name)(torch.device("cuda"))


@functools.cache
def _load(file: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(specification)
    sys.modules[file.stem] = module
    specification.loader.exec_module(module)
    return module


def mend_old_interpreter() -> None:
    """Triton 3.6's interpreter takes a number from an array of one in a way that numpy refuses since 2.4."""
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patched(tensor, scope) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patched


def _main(arguments: list[str]) -> None:
    mend_old_interpreter()
    results = []
    for argument in arguments:
        file, _, name = argument.partition("::")
        for check in [name] if name else [*checks_of(Path(file)), *checks_of(Path(file), slow=True)]:
            start, outcome = time.process_time(), ""
            try:
                getattr(_load(Path(file)), check)(torch.device("cpu"))
            except pytest.skip.Exception as reason:
                outcome = f"{_SKIPPED}{reason}"
            except BaseException:
                outcome = traceback.format_exc()
            results.append(outcome)
            print(f"{check}: {time.process_time() - start:.1f} s{' FAILED' if outcome else ''}", file=sys.stderr)
    print(_RESULTS + json.dumps(results))


if __name__ == "__main__":  # TRITON_INTERPRET=1 python tests/ops/triton_testing.py FILE[::CHECK] ...
    _main(sys.argv[1:])
