"""Weights & Biases by option, tried with a stand-in for its package."""

import json
import sys
import types

import pytest

from ciss_fast.cli import main
from ciss_fast.engine import loop
from ciss_fast.engine.results import ResultsFolder


class Service:
    """What wandb.init has been called with, and what came after."""

    def __init__(self, fail_at=None):
        self.starts, self.logged, self.metrics, self.ends, self.fail_at = [], [], [], [], fail_at

    def init(self, **arguments):
        if self.fail_at == "init":
            raise RuntimeError("api_key not configured\n(no-tty)")
        self.starts.append(arguments)
        return self

    def define_metric(self, name, step_metric=None):
        self.metrics.append((name, step_metric))

    def log(self, values):
        if self.fail_at == len(self.logged):
            raise RuntimeError("connection lost")
        self.logged.append(values)

    def finish(self, exit_code):
        self.ends.append(exit_code)


@pytest.fixture
def service(monkeypatch):
    def install(fail_at=None):
        made = Service(fail_at)
        module = types.ModuleType("wandb")
        module.init = made.init
        monkeypatch.setitem(sys.modules, "wandb", module)
        return made

    return install


@pytest.fixture
def command(tmp_path, tiny_config):
    recipe = tmp_path / "settings.json"
    recipe.write_text(json.dumps(tiny_config(method="ft", task="joint", previews=0).to_dict()))
    options = ["--quiet", "--wandb", "--save-every", "2"]
    return ["train", "--recipe", str(recipe), "--output", str(tmp_path / "run"), *options]


def test_losses_scores_and_settings_are_sent(service, command, tmp_path):
    made = service()
    assert main([*command, "--wandb-project", "mine"]) == 0
    (start,) = made.starts
    assert (start["project"], start["name"], start["resume"]) == ("mine", "run", "allow")
    assert start["dir"] == str(tmp_path / "run") and start["config"]["data"]["task"] == "joint"
    assert made.metrics == [("iteration", None), ("*", "iteration")] and made.ends == [0]
    (entry,) = ResultsFolder(tmp_path / "run").read_metrics()["steps"]
    losses, scores = made.logged[:-1], made.logged[-1]
    assert [values["iteration"] for values in losses] == [item["iteration"] for item in entry["loss_log"]]
    assert [values["loss/loss"] for values in losses] == [item["loss"] for item in entry["loss_log"]]
    assert scores["iteration"] == entry["iterations"] - 1 and scores["score/miou_all"] == entry["miou_all"]


def test_an_interrupted_run_goes_on_under_its_id(service, command, monkeypatch):
    made, update, count = service(), loop.update, iter(range(100))

    def interrupted(*arguments):
        if next(count) == 3:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(loop, "update", interrupted)
    assert main(command) == 130
    monkeypatch.setattr(loop, "update", update)
    assert main(command) == 0
    first, second = made.starts
    assert first["id"] == second["id"] and len(first["id"]) == 12 and made.ends == [1, 0]
    # Saved after iteration 2: the third one comes twice, with the same value.
    losses = [values for values in made.logged if "loss/loss" in values]
    assert [values["iteration"] for values in losses] == [0, 1, 2, 2, 3, 4]
    assert losses[2] == losses[3]


def test_a_lost_connection_does_not_end_the_run(service, command, tmp_path, capsys):
    made = service(fail_at=2)
    assert main(command) == 0
    assert len(made.logged) == 2
    assert capsys.readouterr().err == "warning: --wandb: nothing more is sent: RuntimeError: connection lost\n"
    assert len(ResultsFolder(tmp_path / "run").read_metrics()["steps"]) == 1


def test_without_the_package_nothing_is_begun(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --wandb: expected the package wandb (pip install wandb), got ")
    assert not (tmp_path / "run").exists()


def test_a_service_that_does_not_start_is_one_line(service, command, capsys):
    service(fail_at="init")
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: --wandb: cannot start: RuntimeError: api_key not configured (no-tty) "
        "(WANDB_MODE=offline needs neither account nor network)"
    )


def test_the_package_is_imported_only_when_asked_for(tmp_path, tiny_train, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = tiny_train(tmp_path / "run", method="ft", task="joint", previews=0)
    assert not list(run.glob("wandb*"))
