"""The benchmark of the rotations' fit: that it runs, and that both of its forms compute the same."""

from __future__ import annotations

import json

import pytest
import torch

import ciss_fast
from benchmarks import rotation_fit
from ciss_fast.memory.rotation_fit import batch_prototypes, initial_rotations

SMALL = [
    "--threads", "1", "--classes", "3", "--features", "6", "--dimension", "8", "--images", "3", "--group", "2",
    "--size", "64", "--backbone", "mobilenet_v2", "--iterations", "1", "--step-images", "30", "--epochs", "2",
]  # fmt: skip


def test_parts_and_shares_are_reported(capsys):
    assert rotation_fit.main([*SMALL, "--wall"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.split() and line.split()[0] in rotation_fit.PARTS}
    assert list(rows) == list(rotation_fit.PARTS)
    assert sum(float(row[2].rstrip("%")) for row in rows.values()) == pytest.approx(100, abs=0.05)
    assert len(rows["networks"]) == 3 and all(len(rows[part]) == 5 for part in rotation_fit.PARTS[1:])
    assert any(line.startswith("whole fit: 20 iterations, ") for line in lines)


def test_results_as_a_file(tmp_path, capsys):
    assert rotation_fit.main([*SMALL, "--no-published", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "rotation_fit.json").read_text())
    assert list(found["milliseconds"]) == list(rotation_fit.PARTS) and found["time_of"] == "processor"
    assert found["published_milliseconds"] == {} and found["iterations_of_a_fit"] == 20
    assert found["options"]["dimension"] == 8 and found["machine"]["torch"] == torch.__version__


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here(capsys):
    assert rotation_fit.main([*SMALL, "--device", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --device: expected one of 0 GPUs")


def test_both_forms_compute_the_same():
    generator = torch.Generator().manual_seed(0)
    maps = tuple(torch.rand(4, 8, 3, 3, generator=generator) for _ in range(2))
    memory = torch.rand(3, 6, 8, generator=generator)
    weight, bias = torch.randn(5, 8, generator=generator), torch.randn(5, generator=generator)
    params = initial_rotations(3, 8, generator).mul(20).requires_grad_()
    ours = batch_prototypes(*maps, memory, 2)
    theirs = rotation_fit.published_prototypes(maps, memory, 2)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-4
    loss, _ = ciss_fast.rotation_loss(params, *ours, weight, bias)
    loss.backward()
    separate = [entry.detach().clone().requires_grad_() for entry in params]
    other = rotation_fit.published_rotation_loss(separate, *theirs, weight, bias)
    other.backward()
    assert loss.item() == pytest.approx(other.item(), rel=1e-4)
    gradient = torch.stack([entry.grad for entry in separate])
    assert (params.grad - gradient).abs().max() < 1e-3 * gradient.abs().max()
