import dataclasses
import pickle

import pytest
import torch

from ciss_fast.engine.checkpoint import (
    StepCheckpoint,
    checkpoint_path,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from ciss_fast.errors import CheckpointError


def make_checkpoint(**changes: object) -> StepCheckpoint:
    values = {
        "model": {"weight": torch.arange(64.0).view(2, 32), "steps": torch.tensor(3)},
        "step": 1,
        "method": "mib",
        "config": {"run": {"seed": 0}, "optimisation": {"lr_later": [0.1, 0.2]}},
        "class_names": ["background", "cat"],
        "channel_order": [0, 1],
        "classes_per_step": [1, 1],
        "data_fingerprint": "abc",
        "seconds": 1.5,
        "history": [{"iteration": 0, "loss": 2.25}],
    }
    return StepCheckpoint(**{**values, **changes})


def test_comes_back_as_it_was(tmp_path):
    checkpoint = make_checkpoint()
    stored = load_checkpoint(save_checkpoint(checkpoint_path(tmp_path, 1), checkpoint))
    for field in dataclasses.fields(StepCheckpoint):
        if field.name != "model":
            assert getattr(stored, field.name) == getattr(checkpoint, field.name)
    assert stored.model.keys() == checkpoint.model.keys()
    assert all(torch.equal(stored.model[name], checkpoint.model[name]) for name in stored.model)
    assert stored.model["steps"].dtype == torch.int64


def test_channels_last_and_bf16_tensors_keep_their_values(tmp_path):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    model = {"weight": weight, "half": torch.randn(5).bfloat16(), "empty": torch.zeros(0)}
    stored = load_checkpoint(save_checkpoint(tmp_path / "c.pt", make_checkpoint(model=model))).model
    assert all(torch.equal(stored[name], model[name]) for name in model)


def test_a_changed_byte_in_a_tensor_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path / "c.pt", make_checkpoint())
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(64.0).numpy().tobytes())
    content[place + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"c\.pt: damaged, its content does not match its checksum"):
        load_checkpoint(path)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_noticed(tmp_path, kept):
    path = save_checkpoint(tmp_path / "c.pt", make_checkpoint())
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"c\.pt: damaged or not a checkpoint") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"c\.pt: expected a checkpoint, there is no such file"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_state_dict_is_not_a_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="expected a checkpoint of ciss_fast, got another kind of file"):
        load_checkpoint(tmp_path / "c.pt")


class Intruder:
    """Would write a file if the checkpoint were unpickled without restrictions."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_loading_runs_no_code(tmp_path):
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Intruder(tmp_path / "intruded"), protocol=2))
    torch.save(Intruder(tmp_path / "intruded"), tmp_path / "d.pt")
    for name in ("c.pt", "d.pt"):
        with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "intruded").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "c.pt", make_checkpoint())
    before = path.read_bytes()

    def full_disk(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, make_checkpoint(step=2))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ({"weight": torch.zeros(2, 3)}, "expected an entry bias, there is none"),
        (
            {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)},
            r"expected weight of shape \(2, 3\), got \(2, 4\)",
        ),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)},
            "got an entry more that the model does not have",
        ),
    ],
)
def test_weights_that_do_not_fit(stored, problem):
    model = torch.nn.Linear(3, 2)
    before = model.weight.clone()
    with pytest.raises(CheckpointError, match=f"c.pt: does not fit the model: {problem}"):
        load_weights(model, make_checkpoint(model=stored), "c.pt")
    assert torch.equal(model.weight, before)
