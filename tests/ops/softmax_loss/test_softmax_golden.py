"""Losses and gradients of the papers' own code, made in double precision, through every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ciss_fast import native

FILES = ("fullres_hot", "fullres_small", "fullres_voc15_1", "up_ade", "up_false", "up_true")
OPTIONS = {  # name in the files: arguments that mean the same
    "ali": {"ali": 1.0},
    "kd": {"kd": 1.0, "kd_region": "all"},
    "kd_region": {"kd": 1.0},
    "ce_all_pixels_mean": {"ce": 1.0},
    "cce": {"cce": 1.0},
    "ckd": {"ckd": 1.0},
    "focal_pseudo": {"focal": 1.0},
    "alife_stage1_w3_1": {"ce": 1.0, "ali": 3.0, "kd": 1.0},
}
BASE_OPTIONS = {"ce_base": {"ce": 1.0}, "ce_valid": {"ce": 1.0, "ce_average": "valid"}}

# backend, logits' type, tolerance of the loss (relative) and of the gradient (of its largest entry). Gradients are
# stored in single precision, which bounds what can be asked of double precision.
PRECISIONS = [
    pytest.param("reference", torch.float64, 1e-12, 1e-7, id="reference-float64"),
    pytest.param("reference", torch.float32, 1e-5, 1e-5, id="reference-float32"),
    pytest.param("cpu", torch.float64, 1e-12, 1e-7, id="cpu-float64"),
    pytest.param("cpu", torch.float32, 1e-5, 1e-5, id="cpu-float32"),
]


@pytest.fixture(scope="session")
def golden(shared_file):
    """Function from a file's name to its arrays, read once."""
    read: dict[str, dict[str, np.ndarray]] = {}

    def load(name: str) -> dict[str, np.ndarray]:
        if name not in read:
            with np.load(shared_file(str(Path("golden") / name))) as arrays:
                read[name] = dict(arrays)
        return read[name]

    return load


def agrees(arrays, name, inputs_of, evaluate, options, backend, dtype, loss, gradient) -> None:
    if backend == "cpu" and native.library is None:
        pytest.skip(f"no compiled kernels: {native.unavailable_reason}")
    result = evaluate(
        inputs_of(arrays, dtype), backend=backend, align_corners=int(arrays["align_corners"]) == 1, **options
    )
    expected = float(arrays[f"loss_{name}"])
    assert abs(float(result.total) - expected) <= loss * abs(expected)
    stored = torch.from_numpy(arrays[f"grad_{name}"]).double()
    error = (result.gradient.double() - stored).abs().max() / stored.abs().max()
    assert float(error) <= gradient


@pytest.fixture
def inputs_of(softmax_inputs):
    """Function from a file's arrays to inputs of the op."""
    kind = type(softmax_inputs(batch=1))

    def convert(arrays, dtype):
        teacher = torch.from_numpy(arrays["teacher"]).to(dtype) if "teacher" in arrays else None
        return kind(torch.from_numpy(arrays["student"]).to(dtype), teacher, torch.from_numpy(arrays["label"]))

    return convert


@pytest.mark.parametrize(("backend", "dtype", "loss", "gradient"), PRECISIONS)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("file", FILES)
def test_step(golden, inputs_of, softmax_evaluate, file, name, backend, dtype, loss, gradient) -> None:
    arrays = golden(f"softmax_{file}.npz")
    agrees(arrays, name, inputs_of, softmax_evaluate, OPTIONS[name], backend, dtype, loss, gradient)


@pytest.mark.parametrize(("backend", "dtype", "loss", "gradient"), PRECISIONS)
@pytest.mark.parametrize("name", BASE_OPTIONS)
def test_base_step(golden, inputs_of, softmax_evaluate, name, backend, dtype, loss, gradient) -> None:
    arrays = {key: value for key, value in golden("base.npz").items() if key != "teacher"}
    agrees(arrays, name, inputs_of, softmax_evaluate, BASE_OPTIONS[name], backend, dtype, loss, gradient)


@pytest.mark.parametrize("file", FILES)
def test_every_stored_loss_is_compared(golden, file) -> None:
    stored = {key.removeprefix("loss_") for key in golden(f"softmax_{file}.npz") if key.startswith("loss_")}
    assert stored == set(OPTIONS)


def test_terms_of_a_mix_are_those_computed_alone(golden, inputs_of, softmax_evaluate) -> None:
    arrays = golden("softmax_up_true.npz")
    mix = softmax_evaluate(inputs_of(arrays, torch.float64), align_corners=True, ce=1.0, ali=3.0, kd=1.0)
    for term, name in (("ce", "ce_all_pixels_mean"), ("ali", "ali"), ("kd", "kd_region")):
        assert float(mix.terms[term]) == pytest.approx(float(arrays[f"loss_{name}"]), rel=1e-12)
