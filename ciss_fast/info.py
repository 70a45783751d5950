"""``python -m ciss_fast.info``: what this installation has, what it lacks, and why."""

from __future__ import annotations

import importlib
import platform
from types import ModuleType

import torch

import ciss_fast
from ciss_fast import backends, cuda_runtime, native, triton_runtime


def report() -> str:
    """The whole report as text, one fact a line."""
    facts = [
        ("ciss_fast", ciss_fast.__version__),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("Python", platform.python_version()),
        ("platform", platform.platform()),
        *_native_facts(),
        ("CUDA device", _cuda()),
        *_cuda_kernel_facts(),
        ("Triton", _triton()),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:<{width}}  {value}" for name, value in facts]
    return "\n".join([*lines, "", *_backend_lines(), "", *_choice_lines()])


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


def _cuda_kernel_facts() -> list[tuple[str, str]]:
    module, reason = cuda_runtime.module_or_reason()
    if module is None:
        return [("CUDA kernels", f"no: {reason}")]
    driver = module.driver_version()
    return [
        ("CUDA kernels", f"yes, compiled with {module.compiler}"),
        ("  architectures", module.architectures or "none"),
        ("  CUDA runtime", f"{cuda_runtime.version_text(module.runtime_version())}, linked statically"),
        ("  driver for", f"CUDA {cuda_runtime.version_text(driver)}" if driver else "no driver found"),
    ]


def _triton() -> str:
    try:
        version = importlib.import_module("triton").__version__
    except ImportError as error:
        return f"no: {error}"
    oldest = ".".join(map(str, triton_runtime.OLDEST))
    if triton_runtime.interpreting():
        return f"yes, {version} (kernels need {oldest} or newer); interpreting on the CPU, TRITON_INTERPRET is set"
    return f"yes, {version} (kernels need {oldest} or newer)"


def _backend_lines() -> list[str]:
    rows = [
        (op, backend, _answer(backend, reason))
        for op, reasons in sorted(backends.table().items())
        for backend, reason in reasons.items()
    ]
    return _aligned([("op", "backend", "runs here"), *rows])


def _answer(backend: str, reason: str | None) -> str:
    never = "; never run on a GPU so far" if backend in backends.NOT_RUN_ON_A_GPU else ""
    if reason is not None:
        return f"no: {reason}{never}"
    how = ", in triton's interpreter" if backend == "triton" and triton_runtime.interpreting() else ""
    return f"yes{how}{never}"


def _choice_lines() -> list[str]:
    """What a call that names no backend takes, for tensors on the CPU and on a GPU."""
    rows = [(op, _choice(op, "cpu"), _choice_on_a_gpu(op)) for op in sorted(backends.table())]
    return _aligned([("op", "on the CPU", "on a GPU"), *rows])


def _choice_on_a_gpu(op: str) -> str:
    if torch.cuda.is_available():
        return _choice(op, "cuda")
    order = [backend for backend in backends.table()[op] if backends.DEVICES.get(backend) == "cuda"]
    return f"no GPU here; in this order: {', '.join([*order, 'reference'])}"


def _choice(op: str, device_type: str) -> str:
    try:
        return backends.choose(op, None, torch.device(device_type))
    except (RuntimeError, ValueError) as error:  # the environment asks for one that cannot run
        return f"none: {error}"


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{first:<{widths[0]}}  {second:<{widths[1]}}  {third}" for first, second, third in rows]


if __name__ == "__main__":
    print(report())
