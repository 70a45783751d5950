import pytest

from ciss_fast import demo
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.methods import METHODS


def test_methods_share_base_steps_and_the_comparison_ends_the_output(tmp_path, tiny_config, monkeypatch, capsys):
    # One later step, and no method twice that differs in nothing but what is tested elsewhere.
    monkeypatch.setattr(demo, "load_recipe", lambda name: tiny_config(task="9-3", epochs_later=0.5, previews=1))
    monkeypatch.setattr(demo, "METHODS", ("fine-tuning", "alife", "dkd", "dkd-m"))
    assert demo.main(["--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("run "))
    assert [line.split()[0] for line in lines[start + 2 : start + 6]] == list(demo.METHODS)
    assert lines[start + 6] == f"comparison: {tmp_path / 'comparison.png'}"
    assert (tmp_path / "comparison.png").exists()
    bases = {method: load_checkpoint(checkpoint_path(tmp_path / method, 0)).model for method in demo.METHODS}
    for first, second in (("fine-tuning", "alife"), ("dkd", "dkd-m")):
        assert all(bases[second][name].equal(value) for name, value in bases[first].items())
    assert not bases["dkd"]["head.0.weight"].equal(bases["alife"]["head.0.weight"])


def test_every_incremental_method_is_shown():
    assert set(demo.METHODS) == set(METHODS) - {"joint"}


@pytest.mark.slow
def test_demo_shows_forgetting_and_its_cure(tmp_path):
    assert demo.main(["--output", str(tmp_path)]) == 0
    steps = {method: ResultsFolder(tmp_path / method).read_metrics()["steps"] for method in demo.METHODS}
    base = steps["fine-tuning"][0]["miou_base"]
    assert base > 0.45 and len(steps["fine-tuning"]) == 3
    last = {method: entries[-1] for method, entries in steps.items()}
    assert last["fine-tuning"]["miou_base"] < base / 2
    sigmoid_base = steps["dkd"][0]["miou_base"]
    assert sigmoid_base > 0.4
    for method in set(demo.METHODS) - {"fine-tuning"}:
        assert last[method]["miou_base"] > last["fine-tuning"]["miou_base"] + 0.15
        assert last[method]["hiou"] > last["fine-tuning"]["hiou"] + 0.1
