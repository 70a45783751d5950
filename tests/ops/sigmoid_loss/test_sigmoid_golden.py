"""Losses and gradients of DKD's own code, made in double precision, through every backend."""

from __future__ import annotations

import pytest
import torch

FILES = ("small", "ade")
TERMS = ("mbce", "kd", "ac")
# Logits' type, tolerance of the loss (relative). The files' mBCE has single precision's digits.
PRECISIONS = [
    pytest.param(torch.float64, {"mbce": 1e-7, "kd": 1e-12, "ac": 1e-12}, id="float64"),
    pytest.param(torch.float32, dict.fromkeys(TERMS, 1e-5), id="float32"),
]
LARGEST = {torch.float64: 1e-11, torch.float32: 1e-5}  # error of the gradient over its largest entry


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("file", FILES)
def test_terms(golden, golden_logits, sigmoid_evaluate, sigmoid_define, backend, file, dtype, tolerance) -> None:
    arrays = golden(f"dkd_{file}.npz")
    inputs, pos_weight = golden_logits(arrays, dtype), float(arrays["pos_weight"])
    exact = golden_logits(arrays, torch.float64)
    assert inputs.teacher.shape[1] == 1 + int(arrays["n_old"])
    for term in TERMS:
        options = {term: 1.0, "pos_weight": pos_weight}
        result = sigmoid_evaluate(inputs, backend=backend, **options)
        assert float(result.total) == pytest.approx(float(arrays[f"loss_{term}"]), rel=tolerance[term])
        # The files have the gradients of the whole loss only; the definition's stand for each term's.
        expected = sigmoid_define(exact, **options).gradient
        error = (result.gradient.double() - expected).abs().max() / expected.abs().max()
        assert float(error) <= LARGEST[dtype]


@pytest.mark.parametrize("file", FILES)
def test_gradient_of_the_auxiliary_classifier(golden, golden_logits, sigmoid_evaluate, backend, file) -> None:
    # No other loss of DKD's reaches it: the files' gradient of the whole loss is AC's alone.
    arrays = golden(f"dkd_{file}.npz")
    inputs = golden_logits(arrays, torch.float64)
    gradient = sigmoid_evaluate(inputs, backend=backend, ac=1.0).gradient[:, 0]
    feature = torch.from_numpy(arrays["feature"]).double()
    for name, computed in (
        ("grad_weight_aux", torch.einsum("bhw,bdhw->d", gradient, feature)),
        ("grad_bias_aux", gradient.sum()),
    ):
        stored = torch.from_numpy(arrays[name]).double().flatten()
        torch.testing.assert_close(computed.flatten(), stored, rtol=0, atol=1e-7 * float(stored.abs().max()))


@pytest.mark.parametrize(
    ("dtype", "loss", "gradient"), [(torch.float64, 1e-12, 1e-7), (torch.float32, 1e-5, 1e-5)], ids=str
)
def test_base_step(golden, golden_logits, sigmoid_evaluate, backend, dtype, loss, gradient) -> None:
    arrays = golden("base.npz")
    result = sigmoid_evaluate(
        golden_logits(arrays, dtype), backend=backend, mbce=1.0, ac=1.0, pos_weight=float(arrays["pos_weight"])
    )
    assert float(result.total) == pytest.approx(float(arrays["loss_mbce_base"]), rel=loss)
    stored = torch.from_numpy(arrays["grad_mbce_base"]).double()
    assert float((result.gradient.double() - stored).abs().max() / stored.abs().max()) <= gradient
