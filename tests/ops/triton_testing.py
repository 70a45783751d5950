"""Checks of Triton kernels, run through the interpreter without a GPU, and on a GPU where there is one.

A file of checks is a module of this folder's subfolders whose functions ``check_...(device)`` raise where something is
wrong. `interpreted` runs all of them in one process in which triton interprets, on CPU tensors; the same functions
run on a GPU in the test's own process. A test file says no more than

    CHECKS = Path(__file__).with_name("softmax_triton_checks.py")

    @pytest.mark.parametrize("name", checks_of(CHECKS))
    def test_interpreted(name): interpreted(CHECKS, name)

    @pytest.mark.gpu
    @pytest.mark.parametrize("name", checks_of(CHECKS))
    def test_on_gpu(name): on_gpu(CHECKS, name)
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
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ciss_fast import triton_runtime

_PREFIX = "check_"
_RESULTS = "results of the checks: "
_SKIPPED = "skipped: "


def checks_of(file: Path) -> list[str]:
    """Names of the checks in ``file``, without their prefix; the file is not imported."""
    functions = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [name.removeprefix(_PREFIX) for name in functions if name.startswith(_PREFIX)]


def interpreted(file: Path, name: str) -> None:
    """Fail where check ``name`` of ``file`` raised in the interpreter; skip without triton."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    outcome = _interpret(file)[name]
    if outcome.startswith(_SKIPPED):
        pytest.skip(outcome.removeprefix(_SKIPPED))
    if outcome:
        pytest.fail(outcome, pytrace=False)


def on_gpu(file: Path, name: str) -> None:
    """Run check ``name`` of ``file`` on the GPU."""
    reason = triton_runtime.reason_without()
    if reason is not None:
        pytest.skip(reason)
    _function(_load(file), name)(torch.device("cuda"))


@functools.cache
def _interpret(file: Path) -> dict[str, str]:
    """What each check raised, or why it was skipped, by name: empty where it passed."""
    here = Path(__file__).resolve().parent
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here))),
    }
    finished = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), str(file)], env=environment, capture_output=True, text=True
    )
    lines = [line for line in finished.stdout.splitlines() if line.startswith(_RESULTS)]
    if not lines:
        pytest.fail(f"the interpreter's process ended early:\n{finished.stderr[-4000:]}", pytrace=False)
    return json.loads(lines[0].removeprefix(_RESULTS))


def _load(file: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(specification)
    sys.modules[file.stem] = module
    specification.loader.exec_module(module)
    return module


def _function(module: ModuleType, name: str) -> Callable[[torch.device], None]:
    return getattr(module, _PREFIX + name)


def mend_old_interpreter() -> None:
    """Triton 3.6's interpreter takes a number from an array of one in a way that numpy refuses since 2.4."""
    from triton.runtime import interpreter

    original = interpreter._patch_lang_tensor

    def patched(tensor, scope) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patched


def _main(file: Path, chosen: list[str]) -> None:
    mend_old_interpreter()
    module, results = _load(file), {}
    for name in chosen or checks_of(file):
        start = time.process_time()
        try:
            _function(module, name)(torch.device("cpu"))
            results[name] = ""
        except pytest.skip.Exception as reason:
            results[name] = f"{_SKIPPED}{reason}"
        except BaseException:
            results[name] = traceback.format_exc()
        print(f"{name}: {time.process_time() - start:.1f} s{' FAILED' if results[name] else ''}", file=sys.stderr)
    print(_RESULTS + json.dumps(results))


if __name__ == "__main__":  # python tests/ops/triton_testing.py FILE [NAME ...] with TRITON_INTERPRET=1
    _main(Path(sys.argv[1]), sys.argv[2:])
