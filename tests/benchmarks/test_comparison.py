"""The comparison's list of experiments, their order and their resumption; whole tiny runs where they are asked for."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.comparison.__main__ import main
from benchmarks.comparison.ablations import EXPLANATIONS
from benchmarks.comparison.data import BASE_ONLY, prepare
from benchmarks.comparison.experiments import (
    Experiment,
    ablations,
    all_experiments,
    comparison,
    explanations,
    tuning,
)
from benchmarks.comparison.page import groups_of, write_page, write_tables
from benchmarks.comparison.pictures import draw_picture
from benchmarks.comparison.schedule import Failed, command_line, run_all
from benchmarks.comparison.tasks import METHODS, QUICK_SETTINGS, SETTINGS, TUNING, Setting
from ciss_fast.data import build_dataset
from ciss_fast.engine.recipes import load_recipe
from ciss_fast.errors import DataError
from ciss_fast.palette import class_palette
from ciss_fast.report.configurations import read_configurations

LATER_STEPS = {"15-6": 1, "15-5": 1, "15-1": 5, "10-5": 1, "10-1": 5, "6-3": 2, "6-1": 6}
HERE = Setting("here", "shapes", "demo", "6-3", (0,))


def experiments(**bases):
    return [Experiment(name, "group", HERE, 0, {"method": "alife"}, base) for name, base in bases.items()]


def test_every_method_is_there_and_every_base_comes_before_what_needs_it():
    names = [one.name for one in all_experiments(SETTINGS, "msrc-15-6", TUNING)]
    assert len(set(names)) == len(names)
    for setting in SETTINGS:
        for seed in setting.seeds:
            assert {f"{setting.name}/{method}-seed{seed}" for method in METHODS} <= set(names)
    for one in all_experiments(SETTINGS, "msrc-15-6", TUNING):
        assert one.base is None or names.index(one.base) < names.index(one.name)
    own = [one.name for one in all_experiments(SETTINGS, "msrc-15-6", TUNING) if one.base is None]
    assert [name for name in own if name.startswith("voc-15")] == [
        f"voc-15-5/{method}-seed{seed}" for seed in SETTINGS[1].seeds for method in ("fine-tuning", "dkd", "joint")
    ]


@pytest.mark.parametrize("candidates", TUNING, ids=lambda candidates: candidates.setting.name)
def test_tuning_tries_every_rate_with_every_method_from_two_base_steps(candidates):
    found = list(tuning(candidates))
    pairs = [(one.settings["method"], one.settings["lr_later"]) for one in found]
    assert len(found) == len(set(pairs)) and set(candidates.methods) == {method for method, _ in pairs}
    for method in candidates.methods:
        assert {rate for name, rate in pairs if name == method} >= set(candidates.rates)
    assert set(candidates.methods) >= set(METHODS) - {"alife-m"}
    names = [one.name for one in found]
    folder = candidates.setting.shares_base_with or candidates.setting.name
    bases = [f"{folder}/{method}-0.0003" for method in ("fine-tuning", "dkd")]
    assert {one.base for one in found if one.base} == set(bases)
    assert [one.name for one in found if one.base is None] == (bases if folder == candidates.setting.name else [])
    assert all(one.base not in names or names.index(one.base) < names.index(one.name) for one in found)


def test_ablations_have_every_seed_and_a_base_step_of_their_own_where_they_change_it():
    setting = SETTINGS[0]
    found = {one.name.removeprefix(f"{setting.name}-"): one for one in ablations(setting)}
    for seed in setting.seeds:
        one = found[f"ablations/dkd-kd-seed{seed}"]
        assert (one.seed, one.base) == (seed, f"{setting.name}/dkd-seed{seed}")
    assert [name for name, one in found.items() if one.base is None] == ["arithmetic/alife-fp32-seed0"]


def test_explanations_change_the_tuned_methods_of_their_setting():
    assert set(EXPLANATIONS) <= {setting.name for setting in SETTINGS}
    for setting in SETTINGS:
        for one in explanations(setting):
            method, settings = EXPLANATIONS[setting.name][one.name.split("/")[1].removesuffix("-seed0")]
            assert one.settings == {**setting.tuned(method), **settings} and one.group == f"{setting.name}-explanations"
            folder = setting.shares_base_with or setting.name
            assert one.base == f"{folder}/{'dkd' if method.startswith('dkd') else 'fine-tuning'}-seed0"


@pytest.mark.parametrize(("task", "tried_on"), list(zip(SETTINGS, TUNING, strict=True)))
def test_tuned_rates_are_among_those_tried(task, tried_on):
    """Of the same data and about as many updates a step; ALIFE-M may take ALIFE's."""
    assert tried_on.setting.data.startswith(task.data) and tried_on.setting.recipe == task.recipe
    pairs = set(tried_on.pairs())
    for method, rate in task.learning_rates.items():
        assert ("alife" if method == "alife-m" and method not in tried_on.methods else method, rate) in pairs
    if "alife-m" not in tried_on.methods:
        assert task.learning_rates["alife-m"] == task.learning_rates["alife"]


def test_settings_of_a_method_go_before_those_of_all():
    updates = {one.settings["method"]: one.settings.get("epochs_later") for one in comparison(SETTINGS[-1])}
    assert updates.pop("dkd-m") == "5,2,4,7,5" and set(updates.values()) == {None}


@pytest.mark.parametrize("setting", [*SETTINGS, *QUICK_SETTINGS], ids=lambda setting: setting.name)
def test_recipes_and_changes_are_settings(setting):
    for one in all_experiments([setting], setting.name, TUNING):
        task = one.setting.task
        config = load_recipe(one.setting.recipe).with_settings({**one.setting.changes, **one.settings, "task": task})
        assert (config.method.method, config.data.task) == (one.settings["method"], task)
        for value in (config.optimisation.epochs_later, config.optimisation.lr_later):
            assert not isinstance(value, tuple) or len(value) == LATER_STEPS[task]


def test_command_line(tmp_path):
    one = Experiment(
        "a/b", "a", HERE, 3, {"method": "alife", "loss_weight": {"ali": 0, "kd": 2}, "unbiased_terms": True}, "a/base"
    )
    command = command_line(one, {**one.settings, "flip": False, "output": "out"}, tmp_path)
    assert command[1:6] == ["-m", "ciss_fast", "train", "--recipe", "demo"]
    text = " ".join(command)
    assert "--loss-weight ali=0 --loss-weight kd=2 --unbiased-terms --no-flip --output out" in text
    assert command[-2:] == ["--base-from", str(tmp_path / "a/base")]


def test_bases_run_first_and_what_is_done_is_not_done_again(tmp_path):
    wanted, started = experiments(later="base", base=None, alone=None), []

    def command(one):
        started.append(one.name)
        (tmp_path / one.name).mkdir(exist_ok=True)
        return [sys.executable, "-c", "pass"]

    lines = []
    run_all(wanted, command, tmp_path, 2, lines.append)
    assert set(started) == {"later", "base", "alone"} and started.index("base") < started.index("later")
    run_all(wanted, command, tmp_path, 2, lines.append)
    assert len(started) == 3


def test_a_failure_is_named_and_stops_what_has_not_started(tmp_path):
    def command(one):
        (tmp_path / one.name).mkdir(exist_ok=True)
        return [sys.executable, "-c", "import sys; print('error: reason'); sys.exit(2)" if one.name == "base" else ""]

    with pytest.raises(Failed, match="^base ended with exit code 2: see .*base.log$"):
        run_all(experiments(base=None, later="base"), command, tmp_path, 1, lambda line: None)
    assert "error: reason" in (tmp_path / "logs" / "base.log").read_text()
    assert not (tmp_path / "later").exists() and not (tmp_path / "base" / "done").exists()


def test_missing_data_is_named(tmp_path, capsys):
    with pytest.raises(DataError, match="msrc21_320.tar: not found"):
        prepare("msrc21_320", tmp_path / "nowhere", tmp_path)
    assert main(["run", "--data", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 2
    assert main(["run", "--only", "nothing", "--output", str(tmp_path)]) == 2
    assert "no experiment is called nothing" in capsys.readouterr().err
    assert main(["page", "--output", str(tmp_path)]) == 2
    assert "expected finished experiments, found none" in capsys.readouterr().err


def test_tuning_sees_the_base_classes_training_images_alone(tmp_path, shared_file):
    source = shared_file("data/msrc21_320.tar").parent
    settings = prepare(f"msrc21_320{BASE_ONLY}", source, tmp_path)
    whole = prepare("msrc21_320", source, tmp_path)
    listed = set(build_dataset("folder", Path(whole["data_root"]), "train").ids)
    found = []
    for split in ("train", "val"):
        data = build_dataset("folder", Path(settings["data_root"]), split)
        found += data.ids
        assert len(data.class_names) == 16
        assert all(set(np.unique(data.load_label(index))) <= {*range(16), 255} for index in range(0, len(data), 20))
    assert len(found) == len(set(found)) == 360 and set(found) <= listed  # 360: images of 15-6's base step


def test_marked_tables_are_replaced_and_others_kept(tmp_path, written_run):
    path = tmp_path / "tables.md"
    path.write_text("a\n<!-- table one -->\nold\n<!-- end -->\nb\n<!-- table two -->\nkept\n<!-- end -->\n")
    runs = [written_run("mib-seed0"), written_run("mib-seed1", seed=1, better=0.125)]
    groups = {"one": read_configurations(runs), "three": []}
    assert write_tables(groups, path) == 1
    base, new, score, hiou = (
        [100 * json.loads((run / "metrics.json").read_text())["steps"][-1][name] for run in runs]
        for name in ("miou_base", "miou_new", "miou_all", "hiou")
    )
    spread = f"{statistics.mean(score):.1f} ± {statistics.stdev(score):.1f}"
    base, new, hiou = (f"{values[0]:.1f} ± 0.0" for values in (base, new, hiou))
    row = f"| mib | 2 | {base} | {new} | {spread} | {hiou} | 0.0 + 0.1 | 1.0 | – |"
    first, text = path.read_text().split("\n", 1)
    assert first == "a" and f"{row}\n<!-- end -->\nb\n<!-- table two -->\nkept\n<!-- end -->\n" in text
    assert "old" not in text
    before = path.read_text()
    assert write_tables({"three": []}, path) == 0 and path.read_text() == before
    path.write_text("nothing marked\n")
    for unmarked in (path, tmp_path / "nowhere.md"):
        with pytest.raises(DataError, match="lines <!-- table GROUP -->"):
            write_tables(groups, unmarked)
    assert path.read_text() == "nothing marked\n" and not (tmp_path / "nowhere.md").exists()


def test_a_page_keeps_the_groups_that_are_not_there(tmp_path, written_run):
    path = tmp_path / "page.html"
    first, second = (read_configurations([written_run(name)]) for name in ("mib", "dkd"))
    write_page({"one": first, "two": first, "dropped": first}, path, ["one", "two", "three", "dropped"])
    before = path.read_text("utf-8")
    write_page({"two": second, "three": second}, path, ["three", "one", "two"])
    after = path.read_text("utf-8")

    def section(text, name):
        return text[text.index(f'<section id="{name}">') :].split("</section>")[0]

    assert section(after, "one") == section(before, "one") and "mib" in section(after, "one")
    assert "mib" not in section(after, "two") and "dkd" in section(after, "two") and "dkd" in section(after, "three")
    assert [after.count(f'<section id="{name}">') for name in ("one", "two", "three")] == [1, 1, 1]
    assert re.findall(r'<section id="(.*?)">', after) == re.findall(r'href="#(.*?)"', after) == ["three", "one", "two"]
    assert re.findall(r'<section id="(.*?)">', before) == ["one", "two", "dropped"]
    path.write_text("something else")
    with pytest.raises(DataError, match="expected a page of this command"):
        write_page({"one": first}, path, ["one"])
    assert path.read_text() == "something else"
    assert after.count("<style>") == 1 and after.endswith("</section></body></html>\n")


def test_a_mark_without_its_end_loses_nothing(tmp_path, written_run):
    path = tmp_path / "tables.md"
    path.write_text("<!-- table one -->\ntext\n<!-- table two -->\nold\n<!-- end -->\n")
    entries = read_configurations([written_run("mib")])
    assert write_tables({"one": entries, "two": entries}, path) == 1
    assert path.read_text().startswith("<!-- table one -->\ntext\n<!-- table two -->\n| method |")


def test_picture_shows_predictions(tmp_path, written_run):
    drawn = draw_picture(tmp_path / "a.png", read_configurations([written_run("mib", previews=3)]))
    pixels = np.asarray(Image.open(drawn).convert("RGB"))
    for class_id in range(3):  # as many pixels as a prediction has, not just the legend's patch
        assert (pixels == class_palette()[class_id]).all(axis=-1).sum() > 1000
    assert not (pixels == class_palette()[3]).all(axis=-1).any()
    assert draw_picture(tmp_path / "b.png", read_configurations([written_run("dkd", previews=0)])) is None
    assert not (tmp_path / "b.png").exists()


def test_results_of_other_settings_are_refused(tmp_path, written_run, capsys):
    written_run("shapes-6-3/fine-tuning-seed0", lr_base=0.125)
    assert main(["run", "--quick", "--output", str(tmp_path), "--only", "shapes-6-3/mib-seed0"]) == 2
    assert "fine-tuning-seed0 holds a run of another configuration: " in capsys.readouterr().err


@pytest.mark.parametrize("seeds", [1, 2])
def test_rows_are_named_by_method_and_stale_runs_are_found(tmp_path, written_run, seeds):
    setting = Setting("here", "shapes", "demo", "6-3", tuple(range(seeds)))
    found = [one for one in comparison(setting) if one.settings["method"] == "fine-tuning"]
    for one in found:
        (written_run(one.name, seed=one.seed) / "done").touch()
    (entry,) = groups_of(found, tmp_path)["here"]
    assert entry.name == "fine-tuning" and len(entry.runs) == seeds
    if seeds > 1:
        stored = tmp_path / found[1].name / "config.json"
        config = json.loads(stored.read_text())
        config["optimisation"]["lr_base"] = 0.125
        stored.write_text(json.dumps(config))
        with pytest.raises(DataError, match="expected equal settings in all runs of fine-tuning, got different ones"):
            groups_of(found, tmp_path)


def test_a_group_that_is_not_finished_replaces_no_table_unless_it_is_asked_for(tmp_path, written_run, capsys):
    for number, one in enumerate(comparison(QUICK_SETTINGS[1])):
        written_run(one.name, seed=one.seed, lr_later=2.0**-number)
    names = [f"{QUICK_SETTINGS[1].name}/{method}-seed0" for method in METHODS]
    for name in names[:-1]:
        (tmp_path / name / "done").touch()
    tables = tmp_path / "tables.md"
    before = "<!-- table shapes-6-1 -->\nold\n<!-- end -->\n"
    tables.write_text(before)
    options = ["page", "--quick", "--output", str(tmp_path), "--tables", str(tables)]
    assert main(options) == 0
    assert "shapes-6-1: only 5 of 6 experiments are finished and asked for; what stands" in capsys.readouterr().out
    assert tables.read_text() == before
    assert main([*options, "--partial"]) == 0
    assert "shapes-6-1: only 5 of 6 experiments are finished and asked for\n" in capsys.readouterr().out
    assert "| mib | 1 |" in tables.read_text() and "| dkd-m | 1 |" not in tables.read_text()
    tables.write_text(before)
    (tmp_path / names[-1] / "done").touch()
    assert main([*options, "--only", "shapes-6-1/mib*"]) == 0 and tables.read_text() == before
    assert main(options) == 0 and "| dkd-m | 1 |" in tables.read_text()


@pytest.mark.slow
def test_tiny_runs_and_their_page(tmp_path, capsys):
    options = ["--quick", "--output", str(tmp_path)]
    assert main(["run", *options]) == 0, capsys.readouterr().err
    tables = tmp_path / "tables.md"
    tables.write_text("<!-- table shapes-6-1 -->\n<!-- end -->\n")
    assert main(["page", *options, "--page", str(tmp_path / "page.html"), "--tables", str(tables)]) == 0
    printed = capsys.readouterr().out
    assert "| mib | 1 |" in tables.read_text() and (tmp_path / "page-shapes-6-1.png").stat().st_size > 1000
    assert "| dkd-m | 2 |" in printed and "± " in printed
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "shapes-6-3-ablations" in page and "data:image/jpeg" not in page
