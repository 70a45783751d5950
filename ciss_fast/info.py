"""``python -m ciss_fast.info``: what this installation has, what it lacks, and why."""

from __future__ import annotations

import importlib
import platform
from types import ModuleType

import torch

import ciss_fast
from ciss_fast import backends, native


def report() -> str:
    """The whole report as text, one fact a line."""
    facts = [
        ("ciss_fast", ciss_fast.__version__),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("Python", platform.python_version()),
        ("platform", platform.platform()),
        *_native_facts(),
        ("CUDA device", _cuda()),
        ("Triton", _triton()),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts]
    return "\n".join([*lines, "", *_backend_lines()])


def _native_facts() -> list[tuple[str, str]]:
    library = native.library
    if library is None:
        return [("native library", f"no: {native.unavailable_reason}")]
    threads = library.openmp_threads()
    return [
        ("native library", f"yes, compiled with {library.compiler}"),
        ("instruction sets", ", ".join(library.compiled_instruction_sets())),
        ("  in use", _instruction_set(library)),
        ("OpenMP", f"{threads} threads" if threads else "no (compiled without it): one thread"),
    ]


def _instruction_set(library: ModuleType) -> str:
    try:
        return library.instruction_set()
    except RuntimeError as error:  # CISS_FAST_ISA asks for one that cannot run
        return f"none: {error}"


def _cuda() -> str:
    if torch.version.cuda is None:
        return "no: this torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"no: torch (CUDA {torch.version.cuda}) finds no usable device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{', '.join(names)} (CUDA {torch.version.cuda})"


def _triton() -> str:
    try:
        return f"yes, {importlib.import_module('triton').__version__}"
    except ImportError as error:
        return f"no: {error}"


def _backend_lines() -> list[str]:
    rows = [
        (op, backend, "yes" if reason is None else f"no: {reason}")
        for op, reasons in sorted(backends.table().items())
        for backend, reason in reasons.items()
    ]
    rows = [("op", "backend", "runs here"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{op:<{widths[0]}}  {backend:<{widths[1]}}  {answer}" for op, backend, answer in rows]


if __name__ == "__main__":
    print(report())
