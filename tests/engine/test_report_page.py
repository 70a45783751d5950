import base64
import json
import re
import statistics
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ciss_fast.cli import main
from ciss_fast.engine.metrics import base_pixels
from ciss_fast.errors import CheckpointError, ConfigError
from ciss_fast.report import write_report
from ciss_fast.report.base_pixels import base_pixel_table
from ciss_fast.report.charts import Series, line_chart
from ciss_fast.report.configurations import Statistic, differing_settings, read_configurations
from ciss_fast.report.html import cell, name_cell, table
from ciss_fast.report.page import time_and_memory
from ciss_fast.report.pictures import LONGEST_SIDE, label_map
from ciss_fast.report.scores import losses

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects texts and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.addresses, self.tables, self.rows = [], [], [], [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def test_pixels_of_base_classes(written_run):
    folders = [written_run(name, seed=seed) for seed, name in enumerate(("mib-seed0", "mib-seed1"))]
    folders.append(written_run("other", lr_later=0.5))
    entries = read_configurations(folders)
    (rows,) = Page(base_pixel_table(entries)).tables
    assert rows[0][2:] == ["right", "background", "another base class", "a class of a later step"]
    assert [row[:2] for row in rows[1:]] == [["mib", "0"], ["", "1"], ["", "2"], ["other", "0"], ["", "1"], ["", "2"]]
    with np.load(folders[0] / "evaluation" / "step_2.npz") as arrays:
        parts = base_pixels(arrays["confusion"], 7)
    assert rows[3][2:] == [f"{100 * parts[name]:.1f}" for name in ("right", "background", "base", "later")]
    assert rows[1][5] == "0.0" and float(rows[3][5]) > 0
    for folder in folders[:2]:  # scores without their confusion matrices, as an interrupted copy may leave them
        for path in (folder / "evaluation").glob("step_*.npz"):
            path.unlink()
    (rows,) = Page(base_pixel_table(entries)).tables
    assert [row[0] for row in rows[1:]] == ["other", "", ""]
    assert base_pixel_table(entries[:1]) == ""


def test_page_of_several_configurations(written_run, tmp_path):
    runs = [
        written_run("seed0", seed=0),
        written_run("seed1", seed=1, better=0.125),
        written_run('<i>other & "more"', lr_later=0.5, output="elsewhere"),
    ]
    text = write_report(runs, tmp_path / "page.html").read_text("utf-8")
    page = Page(text)
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not re.search(r"https?://|<script|@import|url\(", text)
    assert "<i>" not in text and '<i>other & "more"' in page.texts
    summary = page.tables[0]
    scores = [json.loads((run / "metrics.json").read_text())["steps"][-1]["miou_all"] for run in runs]
    mean, deviation = 100 * statistics.mean(scores[:2]), 100 * statistics.stdev(scores[:2])
    column = summary[0].index("all mIoU")
    assert [row[0] for row in summary[1:]] == ["alife", '<i>other & "more"']
    assert summary[1][column] == f"{mean:.1f} ± {deviation:.1f}"
    assert summary[2][column] == f"{100 * scores[2]:.1f}"
    (differences,) = [rows for rows in page.tables if rows[0][0] == "setting" and "alife" in rows[0]]
    assert [row[0] for row in differences[1:]] == ["lr_later"] and differences[1][2] == "0.5"
    # Two previews: the image, its truth, and three steps of two configurations each.
    assert len(page.addresses) == 2 * (2 + 3 * 2)
    (classes,) = [rows for rows in page.tables if rows[0][0] == "class"]
    assert len(classes) == 2 + 13
    assert [row[1] for row in classes[2:]] == ["0"] * 7 + ["1"] * 3 + ["2"] * 3


def test_page_of_one_unfinished_run_without_previews(written_run, tmp_path):
    run = written_run("run", steps=1, previews=0)
    page = Page(write_report([run], tmp_path / "page.html").read_text("utf-8"))
    assert page.addresses == [] and "Sample predictions" not in page.texts
    assert page.tables[0][1][:4] == ["run", "alife", "1", "1/3"]


def test_runs_that_are_still_at_an_earlier_step_do_not_change_the_last_scores(written_run, tmp_path):
    runs = [
        written_run("done", seed=0),
        written_run("begun", seed=1, steps=1),
        written_run("over", seed=2, better=0.125),
    ]
    finished, with_begun = (
        Page(write_report(paths, tmp_path / "page.html").read_text("utf-8")).tables[0][1] for paths in (runs[::2], runs)
    )
    assert (finished[2:4], with_begun[2:4]) == (["2", "3/3"], ["3", "1–3/3"])
    assert with_begun[4:] == finished[4:]


def test_the_command(written_run, tmp_path, capsys):
    run = written_run("run")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"
    assert main(["report", str(run), "--output", str(run / "config.json" / "x.html")]) == 2
    assert capsys.readouterr().err.startswith("error: --output: cannot write ")
    (run / "metrics.json").unlink()  # as inside the base step
    assert main(["report", str(run)]) == 2
    assert capsys.readouterr().err == f"error: {run}: expected a run with a finished step, got none\n"
    assert main(["report", str(tmp_path)]) == 2
    assert "metrics.json: expected the file of a run, there is none" in capsys.readouterr().err


def test_a_page_without_photographs_shows_nothing_of_the_data_set(written_run, tmp_path):
    run = written_run("one", seed=0)
    assert main(["report", str(run), "--no-photographs"]) == 0
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert len(page.addresses) == 2 * 3  # two previews after three steps
    assert not any(address.startswith("data:image/jpeg") for address in page.addresses)


def test_damaged_previews_are_named(written_run, tmp_path):
    run = written_run("run")
    (run / "evaluation" / "previews.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"previews.npz: cannot be read: "):
        write_report([run], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_runs_of_other_tasks_are_refused(written_run, tmp_path):
    run, other = written_run("run"), written_run("other", task="9-3")
    with pytest.raises(ConfigError, match="runs: expected one task, got 6-3 in run and 9-3 in other"):
        write_report([run, other], tmp_path / "page.html")


def test_class_orders_and_seeds_are_repetitions_and_loss_weights_are_not(written_run):
    runs = [written_run("a-seed0"), written_run("a-seed1", seed=1, class_order=[2, 1]), written_run("b", dropout=0.25)]
    first, second = configurations = read_configurations(runs)
    assert (first.name, [run.name for run in first.runs]) == ("a", ["a-seed0", "a-seed1"])
    assert [run.name for run in second.runs] == ["b"]
    assert [name for name, _ in differing_settings(configurations)] == ["dropout"]


def test_losses_of_the_same_terms_share_a_chart(written_run):
    runs = [
        written_run("a", terms=("ce", "kd")), written_run("b", terms=("ce",), dropout=0.2),
        written_run("c", terms=("kd", "ce"), dropout=0.3),
    ]  # fmt: skip
    text = losses(read_configurations(runs))
    charts = re.findall(r"<svg.*?</svg>", text)
    assert [re.search(r'class="title"[^>]*>([^<]+)<', chart)[1] for chart in charts] == ["alife, ce, kd", "alife, ce"]
    # A line for every step of a configuration, in the colours of the legend.
    lines = [re.findall(r'<polyline class="line (c\d)', chart) for chart in charts]
    assert lines == [["c0"] * 3 + ["c2"] * 3, ["c1"] * 3]
    assert re.findall(r'class="key (c\d)"></span>(\w)', text) == [("c0", "a"), ("c1", "b"), ("c2", "c")]


def test_statistic_is_that_of_the_sample():
    assert Statistic.of([1.0, None, 3.0]) == (2.0, pytest.approx(2**0.5), 2)
    assert Statistic.of([4.0]) == (4.0, None, 1)
    assert Statistic.of([None]) is None


def test_chart_puts_points_where_they_belong_and_leaves_gaps():
    line = Series("<a>", 0, [(0, 0.0), (1, None), (2, 100.0)])
    text = line_chart("t", [line], x_label="step", y_range=(0, 100))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]*cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert dots == [(46, 224), (410, 28)]  # left and bottom, right and top of the plot
    assert text.count("<polyline") == 2 and "<a>" not in text
    Page(text)


@pytest.mark.parametrize("points", [[], [(0, None)], [(3, 2.0)], [(0, 0.0), (1, -1.0)], [(0, 1e-9), (1, 1e9)]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_chart_of_anything_is_a_picture(points, logarithmic):
    text = line_chart("t", [Series("a", 11, points)], x_label="x", logarithmic=logarithmic)
    Page(text)
    assert "nan" not in text and "inf" not in text


def test_label_map_of_a_large_image_keeps_its_classes():
    ids = np.full((700, 1000), 3, dtype=np.uint8)
    ids[350:] = 255
    picture = Image.open(BytesIO(base64.b64decode(label_map(ids).partition(",")[2])))
    assert picture.mode == "P" and max(picture.size) == LONGEST_SIDE
    assert set(np.unique(np.asarray(picture))) == {3, 255}


@pytest.mark.parametrize(("low", "high", "labels"), [
    (1.0101, 5.45328, ["2", "5"]), (0.03, 70, ["0.1", "1", "10"]), (0.9, 55, ["1", "2", "5", "10", "20", "50"]),
    (3.11111, 3.99999, ["3.11", "4"]),
])  # fmt: skip
def test_ticks_of_losses_are_short(low, high, labels):
    line = Series("loss", 0, [(0, low), (1, high)], markers=False)
    chart = line_chart("x", [line], x_label="iteration", x_ticks=[], logarithmic=True)
    assert re.findall(r'class="tick"[^>]*>([^<]+)<', chart) == labels


def test_headers_stand_as_their_columns():
    text = table(["name", "setting", "number"], [[name_cell("a"), cell("b", "text"), cell("1")]])
    assert re.findall(r"<th scope=\"col\"([^>]*)>", text) == ["", ' class="text"', ""]
    assert "<th" in table(["name"], [])


def test_page_says_how_much_of_the_time_was_waiting(alife_run):
    configurations = read_configurations([alife_run])
    steps = configurations[0].runs[0].metrics["steps"]
    for step in steps:
        for stage in step["stages"]:
            stage["seconds"], stage["seconds_waiting"] = 4.0, 0.5
    assert "<td>12.5</td>" in time_and_memory(configurations)
    for step in steps:
        del step["stages"]
    assert time_and_memory(configurations).count("<td>–</td>") >= 1
