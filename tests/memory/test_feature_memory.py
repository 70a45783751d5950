"""The feature memory and its file: what comes back, what is refused and with which words."""

import dataclasses
import shutil

import pytest
import torch

from ciss_fast.checked_files import save_checked
from ciss_fast.errors import CheckpointError
from ciss_fast.memory.feature_memory import (
    FORMAT,
    FeatureMemory,
    describe_cost,
    extractor_fingerprint,
    load_feature_memory,
    load_fitting_memory,
    save_feature_memory,
)
from ciss_fast.models import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("mobilenet_v2", 16, [3], head_channels=8)


def make_memory(model, **changes):
    features = torch.arange(3 * 4 * 8, dtype=torch.float32).view(3, 4, 8)
    return dataclasses.replace(
        FeatureMemory(features, (0, 2, 5), 1, extractor_fingerprint(model), 7, 12345), **changes
    )


def assert_same(first, second):
    assert torch.equal(first.features, second.features)
    for field in dataclasses.fields(FeatureMemory):
        if field.name != "features":
            assert getattr(first, field.name) == getattr(second, field.name)


def test_comes_back_as_it_was(tmp_path, model):
    memory = make_memory(model)
    path = save_feature_memory(tmp_path / "memory" / "step_1.pt", memory)
    assert_same(load_feature_memory(path), memory)
    fitting = load_fitting_memory(path, model, class_ids=(0, 2, 5), step=1, features_per_class=4)
    assert_same(fitting, memory)
    assert [entry.name for entry in path.parent.iterdir()] == ["step_1.pt"]


def test_a_view_is_stored_without_the_rest(tmp_path, model):
    features = torch.randn(30, 4, 8)[:3]
    path = save_feature_memory(tmp_path / "m.pt", make_memory(model, features=features))
    assert torch.equal(load_feature_memory(path).features, features)
    assert path.stat().st_size < 8000


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"step": 2}, r"step: expected 2, got 1"),
        ({"class_ids": (0, 2)}, r"classes: expected \[0, 2\], got \[0, 2, 5\]"),
        ({"class_ids": (0, 5, 2)}, r"classes: expected \[0, 5, 2\], got \[0, 2, 5\]"),
        ({"features_per_class": 5}, r"number of features a class: expected 5, got 4"),
    ],
)
def test_a_memory_of_another_task_or_step_is_refused(tmp_path, model, wanted, words):
    path = save_feature_memory(tmp_path / "m.pt", make_memory(model))
    arguments = {"class_ids": (0, 2, 5), "step": 1, "features_per_class": 4, **wanted}
    with pytest.raises(CheckpointError, match=rf"m\.pt: feature memory does not fit the model and the task: {words}$"):
        load_fitting_memory(path, model, **arguments)


def test_a_memory_of_another_model_is_refused(tmp_path, model):
    path = save_feature_memory(tmp_path / "m.pt", make_memory(model))
    arguments = {"class_ids": (0, 2, 5), "step": 1, "features_per_class": 4}
    wider = build_model("mobilenet_v2", 16, [3], head_channels=16)
    with pytest.raises(CheckpointError, match=r"feature dimension: expected 16, got 8$"):
        load_fitting_memory(path, wider, **arguments)
    changed = model.frozen_copy()
    changed.head[0].weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(CheckpointError, match=r"feature extractor: expected [0-9a-f]{12}, got [0-9a-f]{12}$"):
        load_fitting_memory(path, changed, **arguments)


def test_fingerprint_is_that_of_the_extractor_alone(model):
    before = extractor_fingerprint(model)
    other = model.frozen_copy()
    other.classifiers[0].weight.add_(1)
    other.add_classifier(2)
    assert extractor_fingerprint(other.to(memory_format=torch.channels_last)) == before
    for name in ("backbone", "aspp", "head"):
        other = model.frozen_copy()
        next(buffer for key, buffer in getattr(other, name).named_buffers() if "running_mean" in key).add_(1)
        assert extractor_fingerprint(other) != before


def test_a_changed_byte_is_noticed(tmp_path, model):
    path = save_feature_memory(tmp_path / "m.pt", make_memory(model))
    content = bytearray(path.read_bytes())
    content[content.index(make_memory(model).features.numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.pt: damaged, its content does not match its checksum$"):
        load_feature_memory(path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_noticed(tmp_path, model, kept):
    path = save_feature_memory(tmp_path / "m.pt", make_memory(model))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointError, match=r"m\.pt: damaged or not a feature memory: ") as error:
        load_feature_memory(path)
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path, model):
    with pytest.raises(CheckpointError, match=r"m\.pt: expected a feature memory, there is no such file$"):
        load_feature_memory(tmp_path / "m.pt")
    torch.save({"features": torch.zeros(2, 3, 4)}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="expected a feature memory of ciss_fast, got another kind of file$"):
        load_feature_memory(tmp_path / "m.pt")
    good = save_feature_memory(tmp_path / "good.pt", make_memory(model))
    content = torch.load(good, weights_only=True)
    names = ("features", "class_ids", "step", "extractor", "source_images", "source_bytes", "dimension")
    content = {name: content[name] for name in names}
    save_checked(tmp_path / "m.pt", content, FORMAT + 1)
    with pytest.raises(CheckpointError, match=rf"expected feature memory format {FORMAT}, got {FORMAT + 1}$"):
        load_feature_memory(tmp_path / "m.pt")
    save_checked(tmp_path / "m.pt", {**content, "class_ids": [0, 2]}, FORMAT)
    with pytest.raises(CheckpointError, match=r"not a consistent feature memory: class_ids: expected 3 different"):
        load_feature_memory(tmp_path / "m.pt")


@pytest.mark.parametrize("content", [b"", b"P", b"hello world", b"\x80\x02c__builtin__\nprint\n."])
def test_files_that_torch_did_not_write(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    words = "damaged or not a feature memory: expected tensors and plain values, got something else"
    with pytest.raises(CheckpointError, match=rf"m\.pt: {words}$"):
        load_feature_memory(tmp_path / "m.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path, model, monkeypatch):
    path = save_feature_memory(tmp_path / "m.pt", make_memory(model))
    before = shutil.copy(path, tmp_path / "before.pt")

    def broken(content, file):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save_feature_memory(path, make_memory(model, step=2))
    assert path.read_bytes() == (tmp_path / "before.pt").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["before.pt", "m.pt"] and before


def test_appending_keeps_what_is_there(model):
    memory = make_memory(model)
    more = memory.appended(torch.full((2, 4, 8), 3.0), (7, 1), source_images=2, source_bytes=100)
    assert more.class_ids == (0, 2, 5, 7, 1) and more.step == memory.step
    assert torch.equal(more.features[:3], memory.features) and (more.features[3:] == 3).all()
    assert (more.source_images, more.source_bytes) == (9, 12445)
    with pytest.raises(ValueError, match=r"class_ids: expected 4 different ones, got \[0, 2, 5, 2\]"):
        memory.appended(torch.zeros(1, 4, 8), (2,))
    for shape in ((1, 5, 8), (1, 4, 9)):
        with pytest.raises(ValueError, match=r"features: expected \[K, 4, 8\], got"):
            memory.appended(torch.zeros(shape), (9,))


def test_moving_to_a_later_model(model):
    memory = make_memory(model)
    moved = memory.moved(-memory.features, 2, "abc")
    assert (moved.step, moved.extractor, moved.class_ids) == (2, "abc", memory.class_ids)
    assert torch.equal(moved.features, -memory.features)
    with pytest.raises(ValueError, match=r"features: expected \[3, 4, 8\], got \[3, 4, 7\]"):
        memory.moved(torch.zeros(3, 4, 7), 2, "abc")


@pytest.mark.parametrize(
    "features", [torch.zeros(3, 4), torch.zeros(3, 4, 8, dtype=torch.float64), torch.zeros(3, 0, 8)]
)
def test_features_of_another_kind(features):
    with pytest.raises(ValueError, match=r"features: expected float32 \[K, S, D\], got"):
        FeatureMemory(features, (0, 1, 2), 0, "abc")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite(model, value, tmp_path):
    features = make_memory(model).features.clone()
    features[1, 2, 3] = value
    words = "features: expected finite numbers, those of class 2 have others"
    with pytest.raises(ValueError, match=words):
        FeatureMemory(features, (0, 2, 5), 0, "abc")
    good = save_feature_memory(tmp_path / "good.pt", make_memory(model))
    content = torch.load(good, weights_only=True)
    content = {name: entry for name, entry in content.items() if name not in ("format", "sha256")}
    save_checked(tmp_path / "m.pt", {**content, "features": features}, FORMAT)
    with pytest.raises(CheckpointError, match=rf"m\.pt: not a consistent feature memory: {words}$"):
        load_feature_memory(tmp_path / "m.pt")


@pytest.mark.parametrize("extractor", [None, "", 3])
def test_an_extractor_that_is_no_fingerprint(extractor):
    with pytest.raises(ValueError, match=rf"^extractor: expected a fingerprint \(text\), got {extractor!r}$"):
        FeatureMemory(torch.zeros(3, 4, 8), (0, 1, 2), 0, extractor)


@pytest.mark.parametrize("changes", [{"step": -1}, {"step": 1.0}, {"source_images": "7"}, {"source_bytes": None}])
def test_steps_and_counts_are_whole_numbers(model, tmp_path, changes):
    ((name, value),) = changes.items()
    words = f"{name}: expected a whole number from 0, got {value!r}"
    with pytest.raises(ValueError, match=f"^{words}$"):
        make_memory(model, **changes)
    content = torch.load(save_feature_memory(tmp_path / "m.pt", make_memory(model)), weights_only=True)
    content = {key: entry for key, entry in content.items() if key not in ("format", "sha256")}
    save_checked(tmp_path / "m.pt", {**content, **changes}, FORMAT)
    with pytest.raises(CheckpointError, match=rf"m\.pt: not a consistent feature memory: {words}$"):
        load_feature_memory(tmp_path / "m.pt")


def test_cost_is_shown_beside_that_of_the_images(model):
    memory = FeatureMemory(torch.zeros(16, 1000, 256), tuple(range(16)), 0, "abc", 5000, 450_000_000)
    assert memory.num_bytes == 16_384_000
    assert describe_cost(memory) == (
        "feature memory: 16 classes x 1000 features of 256 numbers, 16.4 MB; the 5000 images they were taken from: "
        "450 MB (27.5x)"
    )
