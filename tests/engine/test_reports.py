import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ciss_fast.engine.compare import compare_runs, comparison_table
from ciss_fast.engine.plots import draw_curves, draw_predictions
from ciss_fast.engine.progress import Reporter, duration
from ciss_fast.engine.run_clock import RunClock, Work
from ciss_fast.engine.tables import percent, text_table
from ciss_fast.errors import ConfigError
from ciss_fast.palette import class_palette


def entry(step: int, base: float, new: float | None, everything: float, harmonic: float | None) -> dict:
    return {"step": step, "miou_base": base, "miou_new": new, "miou_all": everything, "hiou": harmonic,
            "pixel_accuracy": 0.9}  # fmt: skip


METRICS = {
    "method": "mib", "dataset": "shapes", "task": "6-3", "setting": "overlapped", "num_steps": 2,
    "mean_miou_all": 0.55, "steps": [entry(0, 0.6, None, 0.6, None), entry(1, 0.5, 0.25, 0.45, 1 / 3)],
}  # fmt: skip


def test_comparison_table():
    assert comparison_table({"first": METRICS}).splitlines() == [
        "run    method  steps  base mIoU  new mIoU  all mIoU  hIoU  pixel acc.  base lost  mean over steps",
        "-----  ------  -----  ---------  --------  --------  ----  ----------  ---------  ---------------",
        "first     mib    2/2       50.0      25.0      45.0  33.3        90.0       10.0             55.0",
    ]


def test_text_table_and_percent():
    assert text_table(["a", "bcd"], [["long", "1"]]).splitlines() == ["a     bcd", "----  ---", "long    1"]
    assert (percent(None), percent(0.12345), percent(0.0), percent(1.0)) == ("-", "12.3", "0.0", "100.0")


def test_comparing_runs_of_different_tasks_is_refused(alife_run, tmp_path, tiny_train):
    other = tiny_train(tmp_path / "other", method="ft", task="9-3")
    with pytest.raises(ConfigError, match="runs: expected one task, got 6-3 in alife and 9-3 in other"):
        compare_runs([alife_run, other])


def test_comparing_a_run_with_itself_is_refused(alife_run):
    with pytest.raises(ConfigError, match="runs: expected different folders"):
        compare_runs([alife_run, alife_run])


def test_palette_has_the_colours_of_pascal_voc():
    palette = class_palette()
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {index: tuple(int(value) for value in palette[index]) for index in known} == known


def test_a_step_with_a_single_loss_entry_is_drawn(tmp_path):
    log = [{"iteration": 4, "learning_rate": 0.1, "loss": 2.0}]
    step = entry(0, 0.6, None, 0.6, None) | {"iterations": 5, "loss_log": log}
    colours = []
    for name, steps in (("with", [step]), ("without", [step | {"loss_log": []}])):
        with Image.open(draw_curves(tmp_path / f"{name}.png", METRICS | {"steps": steps})) as picture:
            left = np.asarray(picture.convert("RGB"))[:, : picture.width // 2 - 150]  # the legend lies further right
            colours.append({tuple(colour) for colour in left.reshape(-1, 3).tolist()})
    assert (31, 119, 180) in colours[0] - colours[1]


def test_predictions_picture_has_a_column_for_every_step(tmp_path):
    images = [np.zeros((8, 12, 3), dtype=np.uint8)] * 2
    labels = [np.full((8, 12), 255, dtype=np.uint8), np.ones((8, 12), dtype=np.uint8)]
    predictions = [[np.zeros((8, 12), dtype=np.uint8)] * 2, [np.ones((8, 12), dtype=np.uint8)] * 2]
    path = draw_predictions(tmp_path / "p.png", images, labels, predictions, ["background", "cat"])
    narrow = draw_predictions(tmp_path / "n.png", images, labels, predictions[:1], ["background", "cat"])
    with Image.open(path) as wide_picture, Image.open(narrow) as narrow_picture:
        assert wide_picture.width * 3 == pytest.approx(narrow_picture.width * 4, abs=8)
        colours = {tuple(colour) for colour in np.asarray(wide_picture.convert("RGB")).reshape(-1, 3).tolist()}
    assert {(224, 224, 192), (128, 0, 0), (0, 0, 0)} <= colours


@pytest.mark.parametrize("terminal", [False, True])
def test_reporter_passes_every_item_on(terminal):
    text = io.StringIO()
    reporter = Reporter(console=Console(file=text, force_terminal=terminal, width=100))
    status = {}
    for item in reporter.follow(range(5), 5, "step 0", status):
        status["loss"] = float(item)
    assert item == 4
    assert ("step 0" in text.getvalue()) is terminal  # a quick loop prints nothing where there is no terminal


def test_lines_tell_how_far_a_long_loop_is(monkeypatch):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr("ciss_fast.engine.progress.time.monotonic", lambda: float(next(clock)))
    text = io.StringIO()
    reporter = Reporter(console=Console(file=text, force_terminal=False, width=100))
    status = {"loss": 0.5}
    assert list(reporter.follow("abc", 3, "step 1", status)) == ["a", "b", "c"]
    assert text.getvalue().splitlines() == [
        "step 1: 1/3, 60 s left, loss 0.5",
        "step 1: 2/3, 30 s left, loss 0.5",
    ]


def test_lines_tell_how_long_the_whole_run_takes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    text = io.StringIO()
    reporter = Reporter(console=Console(file=text, force_terminal=False, width=100))
    reporter.clock = RunClock([Work(0, "train", 30), Work(1, "train", 60)])
    reporter.clock.begin(0, "train")
    for _ in reporter.follow(range(3), 3, "step 0", {}):
        now[0] += 100
    assert text.getvalue().splitlines() == [
        "step 0: 1/3, 3 min left (whole run 17 min)",
        "step 0: 2/3, 100 s left (whole run 15 min)",
    ]


def test_quiet_reporter_prints_results_only():
    text = io.StringIO()
    reporter = Reporter(quiet=True, console=Console(file=text, width=100))
    reporter.message("news")
    assert list(reporter.follow("ab", 2, "x", {})) == ["a", "b"]
    reporter.result("table [not markup]")
    assert text.getvalue() == "table [not markup]\n"


def test_durations_are_said_as_people_do():
    expected = {0.4: "0 s", 41.2: "41 s", 119: "119 s", 120: "2 min", 7100: "118 min", 7200: "2.0 h", 90000: "25.0 h"}
    assert {seconds: duration(seconds) for seconds in expected} == expected
    assert duration(4 * 86400 + 8640) == "4.1 days"
