"""Registers, shared memory and spills of every CUDA kernel on every architecture, as ptxas reports them.

``python -m benchmarks.cuda_resources > docs/cuda-resources.md`` compiles csrc/cuda for each architecture in turn (needs
nvcc, no GPU; minutes). ``--architecture 90`` does one. Fails where a kernel spills registers.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "csrc"
ARCHITECTURES = (80, 86, 89, 90, 100, 120)

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(.*)")
_SHARED = re.compile(r"(\d+) bytes smem")
_RUN_AND_FORM = re.compile(r"ILi(\d+)ELNS0_4FormE(\d)E")
_SWITCH = re.compile(r"ILb(\d)E")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; bytes, and registers of a thread."""

    kernel: str
    architecture: int
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    static_shared: int


def compile_and_read(source: Path, architecture: int, nvcc: str = "nvcc") -> list[Usage]:
    """Compile one source for one architecture. Raises RuntimeError with the compiler's message where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", f"-I{SOURCES}", "-Xptxas", "-v",
            "-cubin", str(source), "-o", f"{folder}/kernels.cubin",
        ]  # fmt: skip
        finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"{source.name}, sm_{architecture}: {finished.stderr}")
    return parse(finished.stderr)


def parse(report: str) -> list[Usage]:
    """The kernels that ``ptxas -v`` reports."""
    usages = []
    kernel, architecture, frame = "", 0, (0, 0, 0)
    for line in report.splitlines():
        if match := _ENTRY.search(line):
            kernel, architecture = readable(match[1]), int(match[2])
        elif match := _SPILLS.search(line):
            frame = tuple(map(int, match.groups()))
        elif (match := _USED.search(line)) and kernel:
            shared = _SHARED.search(match[2])
            usages.append(Usage(kernel, architecture, int(match[1]), *frame, int(shared[1]) if shared else 0))
            kernel = ""
    return usages


def readable(symbol: str) -> str:
    """The kernel's name with its template arguments."""
    name = re.search(r"\d+([a-z_]+_kernel)", symbol)
    text = name[1].removesuffix("_kernel") if name else symbol
    if match := _RUN_AND_FORM.search(symbol):
        return f"{text}, {2 * int(match[1]) + 1} pixels, {('geometric', 'exact')[int(match[2])]}"
    if match := _SWITCH.search(symbol):
        return f"{text}, triangle {'shared' if match[1] == '1' else 'not shared'}"
    return text


def table(usages: list[Usage]) -> str:
    """Markdown: kernels by architectures, registers / bytes of spills in each field."""
    architectures = sorted({usage.architecture for usage in usages})
    lines = [
        "| kernel | " + " | ".join(f"sm_{a}" for a in architectures) + " |",
        "|---|" + "---|" * len(architectures),
    ]
    by_kernel: dict[str, dict[int, Usage]] = {}
    for usage in usages:
        by_kernel.setdefault(usage.kernel, {})[usage.architecture] = usage
    for kernel, of in sorted(by_kernel.items()):
        fields = [
            f"{of[a].registers}, {of[a].static_shared}, {of[a].spill_stores + of[a].spill_loads}" if a in of else ""
            for a in architectures
        ]
        lines.append(f"| {kernel} | " + " | ".join(fields) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description="Registers, shared memory and spills of the CUDA kernels.")
    parser.add_argument("--architecture", type=int, action="append", choices=ARCHITECTURES)
    arguments = parser.parse_args()
    if shutil.which("nvcc") is None:
        raise SystemExit("error: nvcc is not on the PATH")
    usages: list[Usage] = []
    for architecture in arguments.architecture or ARCHITECTURES:
        for source in sorted((SOURCES / "cuda").glob("*.cu")):
            usages += compile_and_read(source, architecture)
            print(f"{source.name} for sm_{architecture}", file=sys.stderr)
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    print("# CUDA kernels: registers, shared memory, spills\n")
    release = re.search(r"V([0-9.]+)", version)[1]
    print(f"`python -m benchmarks.cuda_resources`, nvcc {release}. Each field: registers of a thread, bytes of")
    print("static shared memory, bytes of spills (stores and loads). No kernel has been run on a GPU.\n")
    print(table(usages))
    spilling = [usage for usage in usages if usage.spill_stores + usage.spill_loads]
    if spilling:
        raise SystemExit(f"error: {len(spilling)} kernels spill")


if __name__ == "__main__":
    main()
