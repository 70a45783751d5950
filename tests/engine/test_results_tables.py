import csv

from ciss_fast.engine.results import ResultsFolder, class_iou_csv


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_as_csv_are_those_of_the_json(alife_run):
    steps = ResultsFolder(alife_run).read_metrics()["steps"]
    rows = read_csv(alife_run / "scores.csv")
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    for row, entry in zip(rows, steps, strict=True):
        for name in ("miou_base", "miou_new", "hiou", "miou_all_foreground", "pixel_accuracy_foreground"):
            assert (float(row[name]) if row[name] else None) == entry[name]
        groups = [row[f"miou_step_{group}"] for group in range(3)]
        assert [float(value) if value else None for value in groups] == entry["miou_by_step"] + [None] * (
            3 - len(entry["miou_by_step"])
        )


def test_class_iou_as_csv(alife_run):
    steps = ResultsFolder(alife_run).read_metrics()["steps"]
    rows = read_csv(alife_run / "class_iou.csv")
    assert [row["class"] for row in rows] == list(steps[-1]["iou"])
    assert [row["learnt_at_step"] for row in rows] == ["0"] * 7 + ["1"] * 3 + ["2"] * 3
    for row in rows:
        for entry in steps:
            value = row[f"after_step_{entry['step']}"]
            assert (float(value) if value else None) == entry["iou"].get(row["class"])


def test_class_names_with_commas_are_quoted():
    text = class_iou_csv([{"step": 0, "iou": {'door, "double"': 0.5, "wall": None}}])
    assert text == 'class,learnt_at_step,after_step_0\n"door, ""double""",0,0.5\nwall,0,\n'


def test_a_run_tells_its_matrix_and_what_was_forgotten(alife_run):
    metrics = ResultsFolder(alife_run).read_metrics()
    assert metrics["miou_matrix"][2] == metrics["steps"][2]["miou_by_step"]
    assert metrics["miou_matrix"][0][1:] == [None, None]
    first = [row[0] for row in metrics["miou_matrix"]]
    assert metrics["forgetting"][0] == max(first[:2]) - first[2]
    assert metrics["forgetting"][2] is None


def test_memory_and_times_of_a_step_are_written(alife_run):
    for entry in ResultsFolder(alife_run).read_metrics()["steps"]:
        assert entry["peak_memory_bytes"] > 50e6  # Python and torch alone take more
        assert entry["seconds_training"] > 0 and entry["seconds_testing"] > 0
