"""Several processes, as torchrun starts them (Gloo, on the CPU): a single one's numbers, one run folder, resume."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ciss_fast.data.loading import EpochSampler
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.processes import Processes
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.resume import progress_path
from ciss_fast.errors import ConfigError
from ciss_fast.methods import default_settings, get_method
from ciss_fast.methods.method import batch_norms
from ciss_fast.models import build_model

# DKD's losses are means over equal areas, its batch norms are frozen at step 1; here at step 0 as well.
SETTINGS = {
    "method": "dkd-m", "task": "6-6", "freeze_batch_norm": "all", "dropout": 0, "memory_images": 6, "save_every": 1,
    "lr_base": 0.05, "lr_later": 0.05, "accumulate": 1, "precision": "fp32",
}  # fmt: skip


def arguments(folder, tiny_config, settings):
    recipe = folder / "settings.json"
    recipe.write_text(json.dumps(tiny_config(**settings).to_dict()))
    return ["train", "--recipe", str(recipe), "--output", str(folder / "run"), "--quiet"]


START = "import sys; from ciss_fast.cli import main; sys.exit(main(sys.argv[1:]))"


def two_processes(command, code=START):
    """Start what torchrun would start on this machine."""
    port = 29500 + os.getpid() % 2000
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    environment |= {"OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *command],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(processes):
    results = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    return results


def weights(run, step):
    return load_checkpoint(checkpoint_path(run, step)).model


def difference(run, other, step):
    first, second = weights(run, step), weights(other, step)
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def outcome(run):
    metrics = ResultsFolder(run).read_metrics()["steps"]
    return [[(stage["name"], stage["iterations"]) for stage in entry["stages"]] for entry in metrics]


KILLED = """
import itertools, os, signal, sys
from ciss_fast.cli import main
from ciss_fast.engine import loop

update, count = loop.update, itertools.count()

def killed(*arguments):
    if next(count) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    update(*arguments)

loop.update = killed
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_train_to_the_numbers_of_one(tmp_path, tiny_config, tiny_train):
    start = tiny_train(tmp_path / "start", **{**SETTINGS, "lr_base": 1e-9, "lr_later": 1e-9})
    single = tiny_train(tmp_path / "single", **{**SETTINGS, "accumulate": 2})
    (tmp_path / "two").mkdir()
    results = finish(two_processes(arguments(tmp_path / "two", tiny_config, SETTINGS)))
    two = tmp_path / "two" / "run"
    assert "mIoU" in results[0][0] and results[1] == ("", "")  # one of them speaks
    assert outcome(two) == outcome(single)
    for step in (0, 1):
        assert difference(two, single, step) < 2e-3 * difference(start, single, step)
    entries = [ResultsFolder(run).read_metrics()["steps"][1] for run in (two, single)]
    logs = [[entry["loss"] for entry in step["loss_log"]] for step in entries]
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)
    assert entries[0]["pixel_accuracy"] == pytest.approx(entries[1]["pixel_accuracy"], abs=0.01)
    counts = [np.load(ResultsFolder(run).evaluation_path(1))["confusion"].sum() for run in (two, single)]
    assert counts[0] == counts[1]  # every test image once


@pytest.mark.slow
def test_two_nodes_of_torchrun(tmp_path, tiny_config):
    """Two machines, each with a torchrun of its own, that meet at an address: here both are this machine."""
    for name in ("nodes", "two"):
        (tmp_path / name).mkdir()
    finish(two_processes(arguments(tmp_path / "two", tiny_config, SETTINGS)))
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test",
               "--rdzv-endpoint", f"127.0.0.1:{31500 + os.getpid() % 2000}"]  # fmt: skip
    command = arguments(tmp_path / "nodes", tiny_config, SETTINGS)
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *meeting, "--local-addr", "127.0.0.1", "-m", "ciss_fast",
             *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    results = finish(nodes)
    assert sorted("mIoU" in output for output, _ in results) == [False, True]
    for step in (0, 1):
        assert difference(tmp_path / "nodes" / "run", tmp_path / "two" / "run", step) == 0


@pytest.mark.slow
def test_two_killed_processes_go_on_to_the_same_bits(tmp_path, tiny_config):
    for name in ("two", "killed"):
        (tmp_path / name).mkdir()
    finish(two_processes(arguments(tmp_path / "two", tiny_config, SETTINGS)))
    command = arguments(tmp_path / "killed", tiny_config, SETTINGS)
    killed = two_processes(command, KILLED)  # in the middle of step 1
    errors = {process.communicate(timeout=240)[1] for process in killed}
    # The first to be killed leaves the other in the middle of an exchange, unless that is killed as well.
    assert {process.returncode for process in killed} in ({-signal.SIGKILL}, {-signal.SIGKILL, 2})
    for text in errors - {""}:
        assert "error: another process of the run has ended; see what it said; the same command goes on" in text
    saved = load_checkpoint(progress_path(tmp_path / "killed" / "run"))
    assert saved.step == 1 and len(saved.progress["random"]) == 2
    finish(two_processes(command))
    for step in (0, 1):
        assert difference(tmp_path / "killed" / "run", tmp_path / "two" / "run", step) == 0


@pytest.mark.slow
def test_two_processes_with_all_stages_of_alife_m(tmp_path, tiny_config, tiny_train):
    """Stages of the first process alone in between; region means over the whole batch, two parts a process."""
    settings = {
        "method": "alife-m", "task": "6-3", "freeze_batch_norm": "all", "dropout": 0, "region_means": "batch",
        "features_per_class": 5, "rotation_epochs": 1, "lr_base": 0.05, "lr_later": 0.05,
    }  # fmt: skip
    start = tiny_train(tmp_path / "start", **{**settings, "lr_base": 1e-9, "lr_later": 1e-9})
    single = tiny_train(tmp_path / "single", **settings)
    (tmp_path / "two").mkdir()
    finish(two_processes(arguments(tmp_path / "two", tiny_config, {**settings, "accumulate": 2})))
    two = tmp_path / "two" / "run"
    assert outcome(two) == outcome(single)
    for step in range(3):
        assert difference(two, single, step) < 2e-2 * difference(start, single, step)


@pytest.mark.slow
def test_a_dry_run_of_two_processes(tmp_path, tiny_config):
    settings = {**SETTINGS, "method": "alife-m", "features_per_class": 3}
    command = [*arguments(tmp_path, tiny_config, settings), "--dry-run"]
    first, second = finish(two_processes(command))
    assert "2 processes" in first[0] and "\ntime: about " in first[0] and second == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize(("length", "batch"), [(40, 8), (41, 8), (47, 8), (8, 8), (7, 8), (5, 4), (3, 8)])
def test_batches_of_two_processes_are_those_of_one(length, batch):
    whole = [position for _, position in EpochSampler(length, 3).epoch(0)]
    parts = [
        [position for _, position in EpochSampler(length, 3, shard, 2, drop_rest=length >= batch).epoch(0)]
        for shard in (0, 1)
    ]
    assert len(parts[0]) == len(parts[1])
    for number in range(length // batch):
        half = [part[number * batch // 2 : (number + 1) * batch // 2] for part in parts]
        assert sorted(itertools.chain(*half)) == sorted(whole[number * batch : (number + 1) * batch])
    if length < batch:  # one small batch
        assert set(itertools.chain(*parts)) == set(whole) and len(parts[0]) == -(-length // 2)
    else:
        assert len(parts[0]) // (batch // 2) == length // batch


def test_a_single_process_has_nothing_to_exchange():
    alone = Processes()
    alone.wait()
    assert alone.is_first and alone.gather(3) == [3] and alone.from_first("x") == "x"
    counts = np.arange(4)
    assert alone.total(counts) is counts and alone.mean({"loss": 2.0}) == {"loss": 2.0}
    model = torch.nn.Linear(2, 2)
    before = model.weight.clone()
    alone.share_weights(model)
    assert torch.equal(model.weight, before)


def test_batch_norms_are_synchronised_on_gpus():
    """The model keeps its names, and frozen batch norms stay frozen."""
    model = build_model("mobilenet_v2", output_stride=16, classes_per_step=[4], head_channels=8)
    names = list(model.state_dict())
    assert Processes(0, 2).synchronise_batch_norms(model, torch.device("cpu")) is model
    assert Processes().synchronise_batch_norms(model, torch.device("cuda")) is model
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())
    synchronised = Processes(0, 2).synchronise_batch_norms(model, torch.device("cuda"))
    assert list(synchronised.state_dict()) == names
    norms = list(batch_norms(synchronised))
    assert norms and all(isinstance(norm, torch.nn.SyncBatchNorm) for norm in norms)
    settings = dataclasses.replace(default_settings("mib", "voc", "15-5"), freeze_batch_norm="all")
    get_method("mib").set_train_mode(synchronised, 0, settings)
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_a_batch_that_cannot_be_shared_out_is_refused():
    assert Processes(1, 3).share_of(6) == 2
    with pytest.raises(ConfigError, match="^--batch-size: expected a multiple of the 2 processes, got 3$"):
        Processes(0, 2).share_of(3)


def test_wrong_batch_size_ends_both_processes(tmp_path, tiny_config):
    started = time.monotonic()
    processes = two_processes(arguments(tmp_path, tiny_config, {**SETTINGS, "batch_size": 5}))
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2 and "--batch-size: expected a multiple of the 2 processes, got 5" in errors
    assert time.monotonic() - started < 120 and not (tmp_path / "run").exists()
