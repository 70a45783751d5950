"""Loading ImageNet weights into a backbone: a local file, or torchvision's published ones by download."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ..errors import CheckpointError

# torchvision's IMAGENET1K_V1 weights; the file name carries the start of the content's SHA-256.
IMAGENET_URLS = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "mobilenet_v2": "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
}


def load_backbone_weights(backbone: nn.Module, name: str, weights: str | os.PathLike[str]) -> None:
    """Load ImageNet weights into ``backbone`` (its classifier's entries in the file are left out).

    ``weights`` is ``"imagenet"`` (torchvision's weights of architecture ``name``, downloaded once by
    torch.hub and checked against their hash) or the path of a state dict with torchvision's key names. Raises
    `CheckpointError` naming the file and the first key that is missing, not expected or of another shape;
    nothing is loaded then.
    """
    if weights == "imagenet":
        source, state = IMAGENET_URLS[name], _download(IMAGENET_URLS[name])
    else:
        source, state = str(Path(weights)), _read(Path(weights))
    state = {key: value for key, value in state.items() if not key.startswith(backbone.classifier_prefix)}
    _check_fit(backbone, state, source)
    # A plain dict has no version, so a file from before num_batches_tracked existed loads too.
    backbone.load_state_dict(state)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: weight file not found")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a damaged or foreign file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: not a readable PyTorch weight file ({reason})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: expected a state dict (names to tensors), got {type(state).__name__}")
    return state


def _download(url: str) -> Mapping[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{url}: download failed ({reason}); --weights FILE takes a copy on disk") from error


def _check_fit(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    expected = backbone.state_dict()
    for key, value in expected.items():
        if key not in state:
            if key.endswith("num_batches_tracked"):
                continue
            raise CheckpointError(f"{source}: does not fit the backbone: key {key!r} is missing")
        if state[key].shape != value.shape:
            want, got = list(value.shape), list(state[key].shape)
            raise CheckpointError(
                f"{source}: does not fit the backbone: {key!r} expected shape {want}, got {got}"
            )
    for key in state:
        if key not in expected:
            raise CheckpointError(f"{source}: does not fit the backbone: key {key!r} is not expected")
