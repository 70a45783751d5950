"""A small model at the start of a step, as the trainer makes it."""

import pytest
import torch

from ciss_fast.methods import get_method
from ciss_fast.models import build_model


@pytest.fixture
def model_at():
    """A function from method name and step to a model of 4 + 2 + 1 classes prepared for that step."""

    def build(method: str, step: int):
        torch.manual_seed(0)
        auxiliary = get_method(method).uses_auxiliary_classifier
        model = build_model("mobilenet_v2", 16, [4], head_channels=16, auxiliary_classifier=auxiliary)
        for later_step, num_new in enumerate((2, 1)[:step], start=1):
            get_method(method).prepare_step(model, later_step, num_new)
        return model

    return build
