"""Every CUDA source compiles, and no kernel spills registers. Needs nvcc, no GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.cuda_resources import (
    ARCHITECTURES,
    SOURCES,
    Usage,
    compile_and_read,
    parse,
    table,
)

WITHOUT_KERNELS = "versions.cu"
NAMES = ("cayley_rotate.cu", "rotation_loss.cu", "sigmoid_loss.cu", "softmax_loss.cu", WITHOUT_KERNELS)

REPORT = """\
ptxas info    : Compiling entry function '_ZN4ciss4cuda20softmax_cells_kernelILi8ELNS0_4FormE1EEEvNS0_12SoftmaxCellsE' for 'sm_90'
ptxas info    : Function properties for _ZN4ciss4cuda20softmax_cells_kernelILi8ELNS0_4FormE1EEEvNS0_12SoftmaxCellsE
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 512 bytes smem, 424 bytes cmem[0]
"""  # noqa: E501


def check(source: Path, architecture: int) -> None:
    usages = compile_and_read(source, architecture)
    assert bool(usages) == (source.name != WITHOUT_KERNELS)
    for usage in usages:
        assert usage.spill_stores + usage.spill_loads == 0, usage
        # 12 warps a multiprocessor at least, which are enough for arithmetic that is unrolled this far. The rotations'
        # shared memory leaves room for one block of 8 warps, and that has registers to spare.
        rotations = usage.kernel.startswith(("cayley", "rotation"))
        assert usage.registers <= (255 if rotations else 168), usage


def test_sources_are_those_that_are_compiled() -> None:
    assert tuple(path.name for path in sorted((SOURCES / "cuda").glob("*.cu"))) == NAMES
    build = SOURCES.with_name("CMakeLists.txt").read_text()
    assert all(f"csrc/cuda/{name}" in build for name in NAMES)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("name", NAMES)
def test_one_architecture(name: str) -> None:
    check(SOURCES / "cuda" / name, 90)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", NAMES)
def test_architectures(name: str, architecture: int) -> None:
    check(SOURCES / "cuda" / name, architecture)


def test_report() -> None:
    (usage,) = parse(REPORT)
    assert usage == Usage("softmax_cells, 17 pixels, exact", 90, 168, 16, 4, 8, 512)
    assert table([usage]).splitlines()[-1] == "| softmax_cells, 17 pixels, exact | 168, 512, 12 |"
