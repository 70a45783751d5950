"""The network computes what the reference networks of ALIFE and DKD compute, given their weights."""

import json
import zlib

import numpy as np
import pytest
import torch

from ciss_fast.models import build_model


def rebuilt_weight(key, shape, salt):
    """The weights are not stored with the reference logits: they follow from the key."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = (
        np.random.RandomState(zlib.crc32((salt + key).encode())).standard_normal(shape).astype(np.float32)
    )
    if len(shape) == 4:
        values *= np.sqrt(1 / np.prod(shape[1:]))
    elif key.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif key.endswith("weight"):
        values = 0.6 + 0.05 * values
    else:
        values *= 0.1
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def our_name(key):
    for theirs, ours in {
        "decoder.last_conv": "head",
        "aspp.last_conv": "head",
        "decoder.classifier": "classifiers",
        "cls.0": "auxiliary",
        "cls.1": "classifiers.0",
        "cls.2": "classifiers.1",
    }.items():
        if key.startswith(theirs + "."):
            return ours + key[len(theirs) :]
    return key


@pytest.mark.parametrize(
    ("reference", "align_corners", "dilate_first_block"), [("alife", True, True), ("dkd", False, False)]
)
def test_same_logits(reference, align_corners, dilate_first_block, shared_file):
    description = json.loads(shared_file("golden/reference_models.json").read_text())[reference]
    stored = np.load(shared_file("golden/reference_models.npz"))
    state = {
        our_name(key): rebuilt_weight(key, shape, description["salt"])
        for key, shape in description["shapes"].items()
    }
    auxiliary = reference == "dkd"
    classes = description["classes"]
    if auxiliary:  # there the first step's number leaves channel 0 out
        classes = [classes[0] + 1, *classes[1:]]
    with torch.device("meta"):
        model = build_model(
            "resnet101",
            16,
            classes,
            dilate_first_block=dilate_first_block,
            auxiliary_classifier=auxiliary,
        )
    model.load_state_dict(state, assign=True)
    expected = torch.from_numpy(stored[f"{reference}_logits"])
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(stored[f"{reference}_input"])).logits
    full = torch.nn.functional.interpolate(
        logits, expected.shape[-2:], mode="bilinear", align_corners=align_corners
    )
    torch.testing.assert_close(full, expected, rtol=0, atol=1e-6)
