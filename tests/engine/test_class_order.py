"""Classes learned in another order than that of their ids: labels, scores, pictures and reports agree with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ciss_fast.data.transforms import normalise
from ciss_fast.engine import run as run_module
from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.metrics import compute_scores
from ciss_fast.engine.plan import make_plan
from ciss_fast.engine.precision import Precision
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.run import default_output
from ciss_fast.engine.scoring import run_tests
from ciss_fast.models import SegmentationOutput

ORDER = (9, 3, 12, 1, 7, 5, 11, 2, 10, 4, 8, 6)
CLASSES = (0, *ORDER)
SETTINGS = ("overlapped", "disjoint", "sequential", "partitioned")


@pytest.fixture
def plan_of(tiny_config):
    def make(**settings):
        return make_plan(tiny_config(**settings), Reporter(quiet=True))

    return make


class ClassColours(torch.nn.Module):
    """Scores every class of a list by a fixed function of the image, in the order of the list."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.num_classes = list(classes), len(classes)

    def forward(self, images):
        means = torch.nn.functional.avg_pool2d(images, 4)
        directions = torch.randn(13, 3, generator=torch.Generator().manual_seed(0))
        logits = torch.einsum("bchw,kc->bkhw", means, directions)[:, self.classes]
        return SegmentationOutput(logits, logits, weight=None)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", ["mib", "dkd"])
def test_labels_in_training_are_channels_in_learning_order(plan_of, method, setting):
    plan = plan_of(method=method, setting=setting, class_order=ORDER)
    assert plan.task.steps == (CLASSES[:7], CLASSES[7:10], CLASSES[10:])
    for step in range(3):
        labelled = plan.task.seen(step) if setting == "sequential" else plan.task.steps[step]
        images = plan.training_set(step)
        images.transform = None
        for position, index in enumerate(images.indices):
            stored = plan.train_data.load_label(int(index))
            image, label = images[position]
            assert torch.equal(image, normalise(plan.train_data.load(int(index))[0]))
            expected = np.zeros_like(stored)
            for class_id in labelled:
                expected[stored == class_id] = CLASSES.index(class_id)
            expected[stored == 255] = 0 if method == "mib" else 255
            np.testing.assert_array_equal(label.numpy(), expected)
            assert np.isin(stored, plan.task.steps[step]).any()


def test_labels_in_tests_are_channels_in_learning_order(plan_of):
    for unseen, ignored in (("background", False), ("ignore", False), ("ignore", True)):
        plan = plan_of(class_order=ORDER, unseen=unseen, ignore_background=ignored)
        for step in range(3):
            seen = plan.task.seen(step)
            items = plan.test_batches(step).loader.dataset
            for position, index in enumerate(items.indices):
                stored = plan.test_data.load_label(int(index))
                expected = np.full_like(stored, 0 if unseen == "background" else 255)
                for class_id in seen:
                    expected[stored == class_id] = CLASSES.index(class_id)
                expected[stored == 255] = 255
                if ignored:
                    expected[stored == 0] = 255
                np.testing.assert_array_equal(items[position][1].numpy(), expected)


@pytest.mark.parametrize("method", ["alife", "dkd"])
def test_the_same_network_in_another_channel_order_gets_the_same_scores_and_pictures(plan_of, method):
    cpu = Precision(torch.device("cpu"), None, channels_last=False)
    counts, previews = {}, {}
    for order in (None, ORDER):
        plan = plan_of(method=method, class_order=order)
        model = ClassColours(plan.task.seen(2))
        counts[order], previews[order] = run_tests(plan, 2, model, cpu, Reporter(quiet=True))
    if method == "dkd":
        assert all(len(np.unique(preview)) > 2 for preview in previews[None])
    np.testing.assert_array_equal(counts[ORDER], counts[None][np.ix_(CLASSES, CLASSES)])
    by_class = dict(zip(CLASSES, compute_scores(counts[ORDER], [7, 3, 3]).iou, strict=True))
    assert [by_class[class_id] for class_id in range(13)] == list(compute_scores(counts[None], [7, 3, 3]).iou)
    # Which images are shown depends on the steps: compare those that both show.
    shown = {order: plan_of(method=method, class_order=order).preview_images for order in (None, ORDER)}
    common = set(shown[None]) & set(shown[ORDER])
    assert common
    for image in common:
        first, second = (previews[order][shown[order].index(image)] for order in (None, ORDER))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("method", "setting"), [("alife-m", "sequential"), ("dkd-m", "partitioned"), ("joint", "disjoint")]
)
def test_a_run_in_another_order(tmp_path, tiny_train, monkeypatch, method, setting):
    drawn = {}
    monkeypatch.setattr(run_module, "draw_predictions", lambda path, *what: drawn.update(what=what) or path)
    run = tiny_train(
        tmp_path / "run", method=method, setting=setting, class_order=ORDER, features_per_class=4, rotation_epochs=1,
        memory_images=6, data_option={"image_size_px": 32, "train_images": 80, "val_images": 8},
    )  # fmt: skip
    metrics = ResultsFolder(run).read_metrics()
    names = list(metrics["steps"][-1]["iou"])
    class_names = load_checkpoint(checkpoint_path(run, 0)).class_names
    assert names == [class_names[class_id] for class_id in CLASSES]
    if method != "joint":
        assert [entry["new_classes"] for entry in metrics["steps"]] == [names[:7], names[7:10], names[10:]]
    last = load_checkpoint(checkpoint_path(run, len(metrics["steps"]) - 1))
    assert last.channel_order == list(CLASSES)
    assert json.loads((run / "config.json").read_text())["data"]["class_order"] == list(ORDER)
    _, labels, predictions, legend = drawn["what"]
    assert legend == tuple(class_names)
    for label, before, after in zip(labels, predictions[0], predictions[-1], strict=True):
        assert label.shape == before.shape == after.shape
        assert set(np.unique(before)) <= set(CLASSES if method == "joint" else CLASSES[:7])
        assert set(np.unique(label)) <= {*range(13), 255}


def test_ground_truth_in_the_pictures_is_as_stored(tmp_path, tiny_train, plan_of, monkeypatch):
    drawn = {}
    monkeypatch.setattr(run_module, "draw_predictions", lambda path, *what: drawn.update(what=what) or path)
    tiny_train(tmp_path / "run", method="ft", class_order=ORDER)
    plan = plan_of(method="ft", class_order=ORDER)
    for index, label in zip(plan.preview_images, drawn["what"][1], strict=True):
        np.testing.assert_array_equal(label, plan.test_data.load_label(index))


def test_names_and_ids_are_the_same_order_and_the_plain_order_is_none(plan_of):
    plan = plan_of(class_order=ORDER)
    names = tuple(plan.task.class_names[class_id] for class_id in ORDER)
    assert plan_of(class_order=names).config.data.class_order == ORDER
    assert plan_of(class_order=list(range(1, 13))).config.data.class_order is None
    assert plan_of(class_order=[0, *ORDER]).config == plan.config


def test_runs_in_different_orders_have_folders_of_their_own(plan_of):
    plain, permuted, other = (
        default_output(plan_of(class_order=order, output=None).config) for order in (None, ORDER, ORDER[::-1])
    )
    assert plain == Path("runs/shapes-6-3-overlapped-alife-seed0")
    assert permuted.name.startswith(plain.name + "-order") and other.name.startswith(plain.name + "-order")
    assert permuted != other


def test_another_name_of_the_task_is_the_same_run(voc_of_squares, plan_of):
    plan = plan_of(dataset="voc", data_root=str(voc_of_squares), data_option={}, task="15-5s")
    assert (plan.task.name, plan.config.data.task) == ("15-1", "15-1")
    assert plan.settings.published and plan.settings.loss_weights["ali"] == [3, 5, 2, 3, 2]


@pytest.mark.parametrize(
    ("task", "settings", "said"),
    [("15-1", {}, False), ("15-5", {"loss_weight": {"kd": 3}}, True), ("10-10", {}, True)],
)
def test_a_run_says_when_its_loss_weights_are_no_papers(voc_of_squares, tiny_config, capsys, task, settings, said):
    make_plan(
        tiny_config(dataset="voc", data_root=str(voc_of_squares), data_option={}, task=task, **settings), Reporter()
    )
    lines = capsys.readouterr().out.splitlines()
    assert (f"loss weights are not a paper's for alife on voc {task}" in lines) is said
