"""`predict` and `confusion`: no full-resolution logits are allocated, and nothing is read before it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensor_sizes import LargestTensor

import ciss_fast
from ciss_fast import native

pytestmark = pytest.mark.usefixtures("kernel")


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_no_tensor_of_full_resolution(kind, label_map_logits) -> None:
    logits = label_map_logits(21, (4, 6)).to(memory_format=torch.channels_last)
    label = torch.zeros(2, 64, 96, dtype=torch.uint8)
    elements = 21 * label.numel()
    with LargestTensor() as seen:
        ciss_fast.predict(logits, (64, 96), kind=kind)
        ciss_fast.confusion(logits, label, 21, kind=kind)
    assert {"ciss_fast::predict", "aten::new_empty", "ciss_fast::confusion", "aten::new_zeros"} <= seen.operators
    # The label map is the largest: one byte for every pixel.
    assert seen.largest == max(label.numel(), logits.untyped_storage().nbytes()) < elements
    with LargestTensor() as seen:
        ciss_fast.predict(logits, (64, 96), kind=kind, backend="reference")
    assert seen.largest >= 4 * elements  # the definition has them, and this test would see it


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_peak_memory_of_the_process() -> None:
    # Peak of a fresh process, which the kernels' own buffers count towards.
    code = """
import torch, ciss_fast
torch.set_num_threads(1)

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

def measure(function):
    before = peak()
    result = function()
    return peak() - before

logits, label = torch.randn(1, 151, 32, 32), torch.zeros(1, 512, 512, dtype=torch.uint8)
ciss_fast.predict(logits[:, :2], (4, 4)), ciss_fast.confusion(logits[:, :2], label[:, :4, :4], 2)
torch.nn.functional.interpolate(logits, scale_factor=1.5, mode="bilinear").argmax(1)
fused = measure(lambda: (ciss_fast.predict(logits, (512, 512)), ciss_fast.confusion(logits, label, 151)))
print(fused, measure(lambda: ciss_fast.predict(logits, (512, 512), backend="reference")))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    fused, defined = map(int, finished.stdout.split())
    full_resolution = 4 * 151 * 512 * 512
    assert defined > 0.9 * full_resolution
    assert fused < 0.02 * full_resolution


def test_fresh_memory_is_written_before_it_is_read(label_map_logits, monkeypatch) -> None:
    filled = []
    for name in ("new_empty", "new_empty_strided"):
        original = getattr(torch.Tensor, name)

        def fill(self, *args, _original=original, **options):
            tensor = _original(self, *args, **options)
            tensor.fill_(float("nan") if tensor.is_floating_point() else 77)
            filled.append(tensor)
            return tensor

        monkeypatch.setattr(torch.Tensor, name, fill)
    label = torch.randint(5, (2, 41, 50), generator=torch.Generator().manual_seed(1))
    cases = [(dtype, size) for dtype in (torch.float32, torch.float64) for size in ((41, 50), (4, 6), (2, 3), (9, 300))]
    for dtype, size in cases:
        logits = label_map_logits(5, (4, 6), dtype=dtype)
        expected = ciss_fast.predict(logits, size, backend="reference")
        # The kernel keeps its scratch memory between calls: leave what is not a number in it.
        ciss_fast.predict(torch.full((1, 60, 10, 40), float("nan"), dtype=dtype), (80, 300), backend="cpu")
        filled.clear()
        labels = ciss_fast.predict(logits, size, backend="cpu")
        assert any(tensor is labels for tensor in filled)
        assert torch.equal(labels, expected)
        counts = ciss_fast.confusion(logits, label, 5, backend="cpu")
        assert torch.equal(counts, ciss_fast.confusion(logits, label, 5, backend="reference"))


@pytest.mark.parametrize("instruction_set", ["baseline", "avx2"])
def test_other_instruction_sets(instruction_set, tmp_path, label_map_logits, same_labels) -> None:
    compiled = native.library.compiled_instruction_sets()
    if instruction_set not in compiled:
        pytest.skip(f"{instruction_set} is not compiled in")
    sizes = [((3, 4), (48, 64)), ((5, 9), (33, 50)), ((20, 23), (9, 8)), ((6, 37), (6, 37)), ((2, 3), (4, 700))]
    cases = []
    for number, (size, label_size) in enumerate(sizes):
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            logits = label_map_logits(5, size, dtype=dtype, seed=number)
            cases.append((logits, label_size, "sigmoid" if number % 2 else "softmax", number % 3 == 0))
    torch.save(cases, tmp_path / "cases.pt")
    code = f"""
import torch, ciss_fast
from ciss_fast import native
torch.set_num_threads(1)
try:
    assert native.library.instruction_set() == "{instruction_set}"
except RuntimeError as error:
    raise SystemExit(f"skip: {{error}}")
labels = []
for logits, size, kind, align_corners in torch.load({str(tmp_path / "cases.pt")!r}):
    options = dict(kind=kind, align_corners=align_corners, backend="cpu")
    predicted = ciss_fast.predict(logits, size, **options)
    counts = ciss_fast.confusion(logits, predicted.long(), 5, **options)
    assert torch.equal(counts, predicted.flatten().long().bincount(minlength=5).diag())
    labels.append(predicted)
torch.save(labels, {str(tmp_path / "labels.pt")!r})
"""
    environment = {**os.environ, "CISS_FAST_ISA": instruction_set}
    finished = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if finished.returncode and "skip: " in finished.stderr:
        pytest.skip(finished.stderr.strip())
    assert finished.returncode == 0, finished.stderr
    for labels, case in zip(torch.load(tmp_path / "labels.pt"), cases, strict=True):
        same_labels(labels, *case)
