"""Loading backbone weights: a state dict that fits, and one-line errors for everything else."""

import hashlib

import pytest
import torch

from ciss_fast.errors import CheckpointError
from ciss_fast.models import build_model
from ciss_fast.models import weights as weights_module
from ciss_fast.models.mobilenet import mobilenet_v2
from ciss_fast.models.weights import load_backbone_weights


@pytest.fixture
def empty_download_folder(tmp_path):
    """torch.hub's downloads go to a temporary folder."""
    usual = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield
    torch.hub.set_dir(usual)


@pytest.fixture(scope="module")
def state():
    """A state dict like torchvision's: the backbone's entries and a classifier's."""
    torch.manual_seed(1)
    entries = mobilenet_v2().state_dict()
    return {**entries, "classifier.1.weight": torch.ones(3, 1280), "classifier.1.bias": torch.ones(3)}


def backbone_entries(state):
    return {key: value for key, value in state.items() if not key.startswith("classifier.")}


def same_state(network, state):
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


def one_line_error(path, match):
    """Load ``path`` into a network; return nothing, but check the error and that nothing was loaded."""
    network = mobilenet_v2()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=match) as caught:
        load_backbone_weights(network, "mobilenet_v2", path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert same_state(network, before)


def test_loads_all_but_the_classifier(state, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    model = build_model("mobilenet_v2", classes_per_step=[4], weights=tmp_path / "weights.pth")
    assert same_state(model.backbone, backbone_entries(state))


def test_loads_files_without_batch_counters(state, tmp_path):
    """Old weight files have no num_batches_tracked."""
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    network = mobilenet_v2()
    load_backbone_weights(network, "mobilenet_v2", tmp_path / "old.pth")
    assert same_state(network, backbone_entries(state))


def test_missing_key(state, tmp_path):
    del (damaged := dict(state))["features.3.conv.2.weight"]
    torch.save(damaged, tmp_path / "weights.pth")
    one_line_error(tmp_path / "weights.pth", r"key 'features\.3\.conv\.2\.weight' is missing$")


def test_unexpected_key(state, tmp_path):
    torch.save({**state, "features.19.0.weight": torch.ones(1)}, tmp_path / "weights.pth")
    one_line_error(tmp_path / "weights.pth", r"key 'features\.19\.0\.weight' is not expected$")


def test_wrong_shape(state, tmp_path):
    torch.save({**state, "features.0.0.weight": torch.ones(16, 3, 3, 3)}, tmp_path / "weights.pth")
    one_line_error(
        tmp_path / "weights.pth",
        r"'features\.0\.0\.weight' expected shape \[32, 3, 3, 3\], got \[16, 3, 3, 3\]$",
    )


def test_missing_file(tmp_path):
    one_line_error(tmp_path / "nowhere.pth", "weight file not found$")


def test_truncated_file(state, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    (tmp_path / "weights.pth").write_bytes(content[: len(content) // 2])
    one_line_error(tmp_path / "weights.pth", "not a readable PyTorch weight file")


@pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3}, torch.nn.Linear(1, 1)])
def test_file_that_is_no_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    one_line_error(tmp_path / "other.pth", "expected a state dict|not a readable PyTorch weight file")


def test_imagenet_weights_are_downloaded_and_checked(state, tmp_path, monkeypatch, empty_download_folder):
    """The download path against a file: URL: right hash, then wrong hash, then no such file."""
    torch.save(state, tmp_path / "content.pth")
    content = (tmp_path / "content.pth").read_bytes()

    def publish(name):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setitem(weights_module.IMAGENET_URLS, "mobilenet_v2", (tmp_path / name).as_uri())

    publish(f"good-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    model = build_model("mobilenet_v2", classes_per_step=[4], weights="imagenet")
    assert same_state(model.backbone, backbone_entries(state))

    publish("bad-00000000.pth")
    with pytest.raises(CheckpointError, match=r"bad-00000000\.pth: download failed \(.*hash.*\); --weights FILE "):
        build_model("mobilenet_v2", classes_per_step=[4], weights="imagenet")

    monkeypatch.setitem(
        weights_module.IMAGENET_URLS, "mobilenet_v2", (tmp_path / "gone-1234abcd.pth").as_uri()
    )
    with pytest.raises(CheckpointError, match=r"gone-1234abcd\.pth: download failed") as caught:
        build_model("mobilenet_v2", classes_per_step=[4], weights="imagenet")
    assert "\n" not in str(caught.value)


def test_every_backbone_has_a_published_address():
    from ciss_fast.models import BACKBONES

    assert weights_module.IMAGENET_URLS.keys() == BACKBONES.keys()
    for name, url in weights_module.IMAGENET_URLS.items():
        assert url.startswith(f"https://download.pytorch.org/models/{name}-")


def test_real_imagenet_file_loads(shared_file):
    path = shared_file("data/mobilenet_v2_imagenet.pth")
    network = mobilenet_v2(16)
    load_backbone_weights(network, "mobilenet_v2", path)
    assert same_state(network, backbone_entries(torch.load(path, weights_only=True)))
