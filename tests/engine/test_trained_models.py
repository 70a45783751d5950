"""Trained models outside their run: converted from the papers' code, exported, used for prediction, scored."""

import csv
import json
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ciss_fast.cli import main
from ciss_fast.engine.checkpoint import StepCheckpoint, checkpoint_path, load_checkpoint, save_checkpoint
from ciss_fast.engine.reference_checkpoints import convert_reference
from ciss_fast.engine.trained_model import build_network, load_any_checkpoint, model_of
from ciss_fast.errors import CheckpointError


@pytest.fixture
def tiny_checkpoint(tiny_config):
    """A function from a step to a checkpoint of an untrained tiny model; no step is trained."""

    def make(step=1, **settings):
        config = tiny_config(dropout=0.5, align_corners=True, **settings)
        torch.manual_seed(step)
        classes = [7, 3, 3][: step + 1]
        model = build_network(config.model, classes, auxiliary_classifier=False, pretrained=False)
        names = [
            "background", "circle", "square", "triangle", "star", "ring", "cross", "hexagon", "crescent", "bar",
            "heart", "half disc", "flower",
        ]  # fmt: skip
        return StepCheckpoint(
            model=model.state_dict(), step=step, method="alife", config=config.to_dict(), class_names=names,
            channel_order=list(range(sum(classes))), classes_per_step=classes, data_fingerprint="x", seconds=1.5,
            history=[{"iteration": 0, "loss": 0.1}],
        )  # fmt: skip

    return make


def reference_state(description):
    """The stored recipe for the weights, see the golden data's README."""
    state = {}
    for key, shape in description["shapes"].items():
        random = np.random.RandomState(zlib.crc32((description["salt"] + key).encode()))
        values = random.standard_normal(shape).astype(np.float32)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        if len(shape) == 4:
            values *= np.sqrt(1 / np.prod(shape[1:]))
        elif key.endswith("running_var"):
            values = 1 + 0.1 * np.abs(values)
        elif key.endswith("weight"):
            values = 0.6 + 0.05 * values
        else:
            values *= 0.1
        state[key] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


@pytest.mark.parametrize("reference", ["dkd", "alife"])
def test_converted_checkpoints_have_the_reference_logits(reference, shared_file, tmp_path, capsys):
    description = json.loads(shared_file("golden/reference_models.json").read_text())[reference]
    stored = np.load(shared_file("golden/reference_models.npz"))
    state = reference_state(description)
    torch.save({"state_dict": state} if reference == "dkd" else state, tmp_path / "theirs.pth")
    output = tmp_path / "ours.pt"
    arguments = ["convert", str(tmp_path / "theirs.pth"), "--output", str(output), "--dataset", "voc", "--task", "15-1"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{reference}, step 1, 17 channels: {output}\n"
    checkpoint = load_checkpoint(output)
    model, config = model_of(checkpoint, output)
    expected = torch.from_numpy(stored[f"{reference}_logits"])
    with torch.no_grad():
        logits = model(torch.from_numpy(stored[f"{reference}_input"])).logits
    full = torch.nn.functional.interpolate(
        logits, expected.shape[-2:], mode="bilinear", align_corners=config.model.align_corners
    )
    assert float((full - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    assert checkpoint.classes_per_step == [16, 1] and checkpoint.class_names[16] == "pottedplant"


def small_reference(method, steps):
    """Names and classifier shapes of a reference checkpoint; the rest is left out."""
    if method == "dkd":
        heads = {"cls.0": 1, "cls.1": 15} | {f"cls.{step + 1}": 1 for step in range(1, steps)}
    else:
        heads = {f"decoder.classifier.{step}": 1 if step else 16 for step in range(steps)}
    state = {f"{name}.weight": torch.zeros(count, 256, 1, 1) for name, count in heads.items()}
    head = "aspp.last_conv" if method == "dkd" else "decoder.last_conv"
    return {f"module.{name}": value for name, value in state.items()} | {f"module.{head}.0.weight": torch.zeros(1)}


@pytest.mark.parametrize("method", ["dkd", "alife"])
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_any_number_of_steps(method, steps, tmp_path, monkeypatch):
    torch.save(small_reference(method, steps), tmp_path / "theirs.pth")
    monkeypatch.setattr("ciss_fast.engine.reference_checkpoints.model_of", lambda *_: None)
    checkpoint = convert_reference(tmp_path / "theirs.pth", "voc", "15-1")
    assert checkpoint.classes_per_step == [16, *[1] * (steps - 1)]
    assert checkpoint.step == steps - 1 and checkpoint.channel_order == list(range(15 + steps))
    names = {f"classifiers.{step}.weight" for step in range(steps)} | {"head.0.weight"}
    assert set(checkpoint.model) == names | ({"auxiliary.weight"} if method == "dkd" else set())


@pytest.mark.parametrize(
    ("content", "task", "message"),
    [
        ({"a": torch.zeros(1)}, "15-1", "expected the names of DKD's network .* got a and others"),
        ({"state_dict": {"a": 3}}, "15-1", "expected a state dict, bare or under 'state_dict'"),
        ({"model": CheckpointError("x")}, "15-1", "cannot be read as weights only: "),
        (small_reference("dkd", 2), "10-1", r"expected classifiers of \[11, 1, .* got \[16, 1\]"),
        (small_reference("alife", 2), "15-1", "does not fit the model: expected an entry backbone.conv1.weight"),
    ],
)
def test_other_files_are_refused_in_one_line(content, task, message, tmp_path):
    torch.save(content, tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        convert_reference(tmp_path / "theirs.pth", "voc", task)
    assert "\n" not in str(error.value) and str(tmp_path / "theirs.pth") in str(error.value)


def test_safetensors_there_and_back(tiny_checkpoint, tmp_path, capsys):
    pytest.importorskip("safetensors")
    first = tiny_checkpoint()
    save_checkpoint(tmp_path / "a.pt", first)
    assert main(["convert", str(tmp_path / "a.pt"), "--output", str(tmp_path / "b.safetensors")]) == 0
    assert main(["convert", str(tmp_path / "b.safetensors"), "--output", str(tmp_path / "c.pt")]) == 0
    last = load_checkpoint(tmp_path / "c.pt")
    assert first.model.keys() == last.model.keys()
    assert all(value.equal(last.model[name]) for name, value in first.model.items())
    for name in ("step", "method", "config", "class_names", "channel_order", "classes_per_step", "history", "seconds"):
        assert getattr(first, name) == getattr(last, name)


def test_damaged_safetensors_are_noticed(tiny_checkpoint, tmp_path, capsys):
    pytest.importorskip("safetensors")
    from ciss_fast.engine.safetensors_files import save_safetensors

    path = save_safetensors(tmp_path / "a.safetensors", tiny_checkpoint())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="a.safetensors: damaged, its content does not match its checksum"):
        load_any_checkpoint(path)
    path.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match="a.safetensors: damaged or not a safetensors file: "):
        load_any_checkpoint(path)


def test_safetensors_that_is_not_installed(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    save_checkpoint(tmp_path / "a.pt", tiny_checkpoint())
    assert main(["convert", str(tmp_path / "a.pt"), "--output", str(tmp_path / "b.safetensors")]) == 2
    assert capsys.readouterr().err.startswith("error: safetensors: expected the package to be installed (pip install ")
    assert not (tmp_path / "b.safetensors").exists()


def test_predict_writes_class_ids_and_overlays(tiny_checkpoint, tmp_path, capsys):
    save_checkpoint(checkpoint_path(tmp_path / "run", 0), tiny_checkpoint(0))
    last = tiny_checkpoint(1)
    last.channel_order[1:4] = [3, 1, 2]
    save_checkpoint(checkpoint_path(tmp_path / "run", 1), last)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    output = tmp_path / "out"
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "photo.png"), "--output", str(output)]) == 0
    assert str(output / "photo_classes.png") in capsys.readouterr().out
    with Image.open(output / "photo_classes.png") as picture, Image.open(output / "photo_overlay.png") as overlay:
        classes, painted = np.asarray(picture), np.asarray(overlay)
        assert picture.mode == "P" and classes.shape == (40, 56)
    assert painted.shape == pixels.shape
    assert np.array_equal(painted[classes == 0], pixels[classes == 0])
    model, _ = model_of(last, "last")
    from ciss_fast.data import normalise

    with torch.no_grad():
        logits = model(normalise(pixels)[None]).logits
    full = torch.nn.functional.interpolate(logits, (40, 56), mode="bilinear", align_corners=True)[0]
    expected = np.array(last.channel_order)[full.argmax(0).numpy()]
    assert (expected == classes).mean() > 0.999  # ties apart


@pytest.mark.parametrize(
    ("images", "output", "message"),
    [
        (["a/x.png", "b/x.png"], "out", "images: expected different names, got "),
        (["x_classes.png", "x.png"], ".", "x_classes.png is one of the images; expected another folder"),
        (["missing.png"], "out", "missing.png: image missing; expected a readable file"),
    ],
)
def test_predict_refuses_what_would_be_overwritten(images, output, message, tiny_checkpoint, tmp_path, capsys):
    save_checkpoint(tmp_path / "a.pt", tiny_checkpoint(0))
    paths = [str(tmp_path / image) for image in images]
    assert main(["predict", str(tmp_path / "a.pt"), *paths, "--output", str(tmp_path / output)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert not list(tmp_path.rglob("*_overlay.png"))


def test_eval_scores_every_step_of_a_run(tiny_checkpoint, tmp_path, capsys):
    for step in range(3):
        save_checkpoint(checkpoint_path(tmp_path / "run", step), tiny_checkpoint(step))
    assert main(["eval", str(tmp_path / "run"), "--quiet", "--output", str(tmp_path / "scores")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2"]
    with (tmp_path / "scores" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert f"{100 * float(rows[2]['miou_all']):.1f}" == lines[4].split()[4]
    assert main(["eval", str(checkpoint_path(tmp_path / "run", 2)), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == lines[4].split()


def scores_of_eval(tmp_path, *options):
    assert main(["eval", str(tmp_path / "run"), "--quiet", "--output", str(tmp_path / "scores"), *options]) == 0
    with (tmp_path / "scores" / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def test_eval_options_change_what_is_scored(tiny_checkpoint, tmp_path):
    for step in range(3):
        save_checkpoint(checkpoint_path(tmp_path / "run", step), tiny_checkpoint(step))
    plain = scores_of_eval(tmp_path)
    again = scores_of_eval(tmp_path, "--eval-batch-size", "1", "--workers", "1")
    for row, other in zip(plain, again, strict=True):
        assert {**row, "seconds_testing": other["seconds_testing"]} == other
    ignored = scores_of_eval(tmp_path, "--unseen", "ignore")
    names = ("miou_all", "pixel_accuracy")
    assert any(ignored[0][name] != plain[0][name] for name in names)  # classes of later steps are there
    assert all(ignored[2][name] == plain[2][name] for name in names)  # nothing is unseen
    without = scores_of_eval(tmp_path, "--ignore-background")
    assert [row["pixel_accuracy"] for row in without] != [row["pixel_accuracy"] for row in plain]
    assert without[2]["pixel_accuracy"] == plain[2]["pixel_accuracy_foreground"]
    assert scores_of_eval(tmp_path, "--eval-crop", "24")[2]["miou_all"] != plain[2]["miou_all"]
    rough = scores_of_eval(tmp_path, "--precision", "bf16")
    for row, other in zip(rough, plain, strict=True):
        assert abs(float(row["pixel_accuracy"]) - float(other["pixel_accuracy"])) < 0.05


@pytest.mark.parametrize(("option", "value", "message"), [
    ("--unseen", "drop", "--unseen: expected one of background, ignore, got 'drop'"),
    ("--eval-crop", "3", "--eval-crop: expected at least 16, got '3'"),
    ("--precision", "fp8", "--precision: expected one of fp32, bf16, fp16, got 'fp8'"),
])  # fmt: skip
def test_wrong_options_of_eval_and_predict_are_one_line(option, value, message, tiny_checkpoint, tmp_path, capsys):
    save_checkpoint(tmp_path / "a.pt", tiny_checkpoint(0))
    commands = [["eval", str(tmp_path / "a.pt")]]
    if option == "--precision":
        commands.append(["predict", str(tmp_path / "a.pt"), "x.png"])
    for command in commands:
        assert main([*command, option, value]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"


def test_predict_in_other_arithmetic(tiny_checkpoint, tmp_path, monkeypatch):
    from ciss_fast.engine.precision import Precision

    save_checkpoint(tmp_path / "a.pt", tiny_checkpoint(0))
    Image.fromarray(np.zeros((40, 56, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    used = []
    autocast = Precision.autocast
    monkeypatch.setattr(Precision, "autocast", lambda self: used.append(self.autocast_dtype) or autocast(self))
    command = ["predict", str(tmp_path / "a.pt"), str(tmp_path / "photo.png"), "--output", str(tmp_path / "out")]
    assert main([*command, "--precision", "bf16"]) == 0 and used == [torch.bfloat16]
    assert main(command) == 0 and used == [torch.bfloat16, None]


def test_eval_of_nothing_is_one_line(tmp_path, capsys):
    assert main(["eval", str(tmp_path)]) == 2
    assert "expected a run with a finished step, there is no checkpoints/step_N.pt" in capsys.readouterr().err
