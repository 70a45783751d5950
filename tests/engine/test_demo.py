import pytest

from ciss_fast import demo
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.results import ResultsFolder


def test_methods_share_the_base_step_and_the_comparison_ends_the_output(tmp_path, tiny_config, monkeypatch, capsys):
    monkeypatch.setattr(demo, "load_recipe", lambda name: tiny_config())
    assert demo.main(["--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("run "))
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == list(demo.METHODS)
    assert lines[start + 5] == f"comparison: {tmp_path / 'comparison.png'}"
    assert (tmp_path / "comparison.png").exists()
    first, *others = (load_checkpoint(checkpoint_path(tmp_path / method, 0)).model for method in demo.METHODS)
    for other in others:
        assert all(other[name].equal(first[name]) for name in first)


@pytest.mark.slow
def test_demo_shows_forgetting_and_its_cure(tmp_path):
    assert demo.main(["--output", str(tmp_path)]) == 0
    steps = {method: ResultsFolder(tmp_path / method).read_metrics()["steps"] for method in demo.METHODS}
    base = steps["fine-tuning"][0]["miou_base"]
    assert base > 0.5 and len(steps["fine-tuning"]) == 3
    last = {method: entries[-1] for method, entries in steps.items()}
    assert last["fine-tuning"]["miou_base"] < base / 2
    for method in ("mib", "alife"):
        assert last[method]["miou_base"] > last["fine-tuning"]["miou_base"] + 0.15
        assert last[method]["hiou"] > last["fine-tuning"]["hiou"] + 0.1
