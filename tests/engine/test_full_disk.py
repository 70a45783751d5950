"""A disk that is full while something is saved: one line, and the same command goes on to the same bits."""

import errno
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ciss_fast.atomic_files import atomic_write
from ciss_fast.checked_files import load_checked, save_checked
from ciss_fast.cli import main
from ciss_fast.engine import loop
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.resume import earlier_progress_path

resource = pytest.importorskip("resource")  # not on Windows
LIMIT = 1_000_000  # bytes; a checkpoint has ten times as many


@contextmanager
def files_of_at_most(size):
    """The system refuses to write files beyond ``size`` bytes (EFBIG), as it does on a full disk (ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_error_names_the_file_and_the_old_one_stays(tmp_path):
    path = tmp_path / "c.pt"
    save_checked(path, {"weight": torch.arange(3)}, 1)
    with files_of_at_most(LIMIT), pytest.raises(OSError, match="File too large") as caught:
        save_checked(path, {"weight": torch.zeros(LIMIT)}, 1)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert load_checked(path, "file", ["weight"], 1)["weight"].tolist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_of_a_library_is_led_back_to_the_disks(tmp_path, wrapped):
    def write(file):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            if wrapped:
                raise RuntimeError("unexpected pos") from None
            raise

    with pytest.raises(OSError, match="No space left on device") as caught:
        atomic_write(tmp_path / "file", write)
    assert caught.value.filename == str(tmp_path / "file") and list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="^mistake$"):
        atomic_write(tmp_path / "file", lambda file: (_ for _ in ()).throw(RuntimeError("mistake")))


def test_a_run_goes_on_once_there_is_space(tmp_path, tiny_config, tiny_train, capsys, monkeypatch):
    """No space for the second save of a step, then none for the finished step."""
    settings = {"method": "ft", "task": "joint", "epochs_base": 2, "save_every": 3, "previews": 0}
    whole, run = tiny_train(tmp_path / "whole", **settings), tmp_path / "run"
    (tmp_path / "settings.json").write_text(json.dumps(tiny_config(**settings).to_dict()))
    command = ["train", "--recipe", str(tmp_path / "settings.json"), "--output", str(run), "--quiet"]
    update, full = loop.update, []

    def fill_up(at):
        count = iter(range(100))

        def counted(*arguments):
            if next(count) == at:
                full.append(files_of_at_most(LIMIT))
                full[-1].__enter__()
            update(*arguments)

        monkeypatch.setattr(loop, "update", counted)

    for at, name in ((4, "in_progress.pt"), (6, "step_0.pt")):
        fill_up(at)
        try:
            assert main(command) == 2
        finally:
            full.pop().__exit__(None, None, None)
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: {run / 'checkpoints' / name}: File too large"
        assert not list(run.rglob("*.partial"))
    assert load_checkpoint(earlier_progress_path(run)).progress["state"]["iteration"] == 6
    monkeypatch.setattr(loop, "update", update)
    assert main(command) == 0
    first, second = (load_checkpoint(checkpoint_path(folder, 0)).model for folder in (run, whole))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    matrices = [np.load(folder / "evaluation" / "step_0.npz")["confusion"] for folder in (run, whole)]
    assert np.array_equal(*matrices)


def test_curves_that_cannot_be_written_do_not_end_the_run(tmp_path, tiny_train, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    calls = []

    def refuse(*arguments):
        calls.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", refuse)
    with pytest.warns(UserWarning, match="tensorboard: no more curves are written: No space left on device"):
        run = tiny_train(tmp_path / "run", method="ft", task="joint", previews=0)
    assert checkpoint_path(run, 0).exists() and len(calls) == 2  # one in training, one for the scores
