"""Runs killed with SIGKILL again and again, at any moment and inside savings, end with the bits of one that was not."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.results import ResultsFolder

# Imports everything once and forks for every attempt. Each attempt is killed after a random time, or when it flushes
# or renames a file for the n-th time.
SERVER = """
import json, os, random, signal, sys, time
import torch
from ciss_fast.cli import main

torch.set_num_threads(1)
recipe, folder, kills, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)

def kill_at(name, count, after):
    original, calls = getattr(os, name), [0]

    def counted(*arguments, **keywords):
        calls[0] += 1
        if calls[0] == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments, **keywords)
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, name, counted)

def start(run, hook=None):
    child = os.fork()
    if child == 0:
        if hook is not None:
            kill_at(*hook)
        os._exit(main(["train", "--recipe", recipe, "--output", run, "--quiet"]))
    return child

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

began = time.monotonic()
assert end(start(folder + "/whole")) == 0
duration = time.monotonic() - began
codes, halves = [], 0
for _ in range(kills):
    how = rng.choice(["time", "fsync", "replace", "replaced"])
    if how == "time":
        child = start(folder + "/run")
        time.sleep(rng.uniform(0.05, duration))
        os.kill(child, signal.SIGKILL)
    else:
        hook = {"fsync": ("fsync", False), "replace": ("replace", False), "replaced": ("replace", True)}[how]
        child = start(folder + "/run", (hook[0], rng.randrange(1, 9), hook[1]))
    codes.append(end(child))
    halves += any(name.endswith(".partial") for _, _, names in os.walk(folder + "/run") for name in names)
print(json.dumps({"killed": codes.count(-9), "others": [code for code in codes if code not in (0, -9)],
                  "halves": halves, "last": end(start(folder + "/run"))}))
"""


def kill_again_and_again(folder, config, kills, seed):
    recipe = folder / "settings.json"
    recipe.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-c", SERVER, str(recipe), str(folder), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def without_times(run):
    metrics = ResultsFolder(run).read_metrics()
    for entry in metrics["steps"]:
        del entry["seconds_training"], entry["seconds_testing"], entry["peak_memory_bytes"]
        for stage in entry["stages"]:
            del stage["seconds"]
            stage.pop("seconds_waiting", None)
    return metrics


def assert_same(run, whole):
    found, names = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.parent.name != "tensorboard"}
        for folder in (run, whole)
    )
    assert found == names
    metrics = without_times(whole)
    assert without_times(run) == metrics
    for step in range(len(metrics["steps"])):
        first, second = (load_checkpoint(checkpoint_path(folder, step)) for folder in (run, whole))
        assert first.model.keys() == second.model.keys()
        assert [name for name in first.model if not torch.equal(first.model[name], second.model[name])] == []
        assert first.history == second.history
        arrays = [np.load(folder / "evaluation" / f"step_{step}.npz") for folder in (run, whole)]
        assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[1].files)
    for name in names:
        if name.parts[0] == "memory":
            if name.suffix == ".json":
                assert (run / name).read_bytes() == (whole / name).read_bytes()
            else:
                features = [torch.load(folder / name, weights_only=True)["features"] for folder in (run, whole)]
                assert torch.equal(*features)


def test_killed_run(tmp_path, tiny_config):
    """With a teacher, AdamW, bfloat16, dropout and a loader process."""
    config = tiny_config(
        method="alife", task="6-6", optimiser="adamw", precision="bf16", dropout_at_later_steps=True, save_every=1,
        workers=1, previews=1, data_option={"image_size_px": 32, "train_images": 24, "val_images": 4},
    )  # fmt: skip
    result = kill_again_and_again(tmp_path, config, 5, seed=1)
    assert result["last"] == 0 and result["others"] == [] and result["killed"] >= 3 and result["halves"] >= 1
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", ["alife-m", "dkd-m", "mib"])
def test_killed_run_with_every_stage(tmp_path, tiny_config, method, seed):
    config = tiny_config(
        method=method, save_every=1, features_per_class=3, rotation_epochs=1, memory_images=6, workers=seed,
    )  # fmt: skip
    result = kill_again_and_again(tmp_path, config, 20, seed)
    assert result["last"] == 0 and result["others"] == [] and result["killed"] >= 6 and result["halves"] >= 1
    assert_same(tmp_path / "run", tmp_path / "whole")
