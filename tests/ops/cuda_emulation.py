"""The CUDA kernels compiled for the CPU, where csrc/cuda/emulation runs every block and thread of them.

The same sources that nvcc compiles, and the same launches; a C++ compiler is all it takes. Built once for each state of
the sources, in ``build/``.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "csrc"
OPTIONS = ("-std=c++17", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")


@functools.cache
def emulated_library() -> ModuleType:
    """The module ``_cuda`` with emulated kernels; skips where there is no compiler for it."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler for the emulated CUDA kernels")
    if importlib.util.find_spec("pybind11") is None:
        pytest.skip("no pybind11 for the emulated CUDA kernels")
    files = sorted(path for name in ("core", "cpu", "cuda", "bindings") for path in (SOURCES / name).rglob("*.*"))
    state = hashlib.sha256(repr((compiler, OPTIONS, sys.version)).encode())
    for path in files:
        state.update(path.read_bytes())
    folder = REPOSITORY / "build" / "cuda-emulation"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / state.hexdigest()[:16] / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of the same test run wait for the first
        if not library.is_file():
            _build(compiler, library)
    spec = importlib.util.spec_from_file_location("_cuda", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(compiler: str, library: Path) -> None:
    import pybind11

    for old in library.parent.parent.glob("*/"):
        shutil.rmtree(old)
    library.parent.mkdir()
    include = [f"-I{SOURCES}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    objects = []
    for source in [
        *sorted((SOURCES / "cuda").glob("*.cu")),
        SOURCES / "cuda" / "emulation" / "emulated_device.cpp",
        SOURCES / "bindings" / "cuda_module.cpp",
    ]:
        objects.append(library.with_name(f"{source.name}.o"))
        _run(compiler, *OPTIONS, *include, "-x", "c++", "-c", source, "-o", objects[-1])
    unfinished = library.with_suffix(".new")
    _run(compiler, "-shared", *objects, "-o", unfinished)
    unfinished.replace(library)


def _run(*command: object) -> None:
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
