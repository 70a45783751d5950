"""Device, arithmetic and memory layout of the network."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ciss_fast.engine.config import RunConfig
from ciss_fast.engine.processes import processes_of_environment
from ciss_fast.errors import ConfigError

AUTOCAST_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Where and in which arithmetic the network computes. Parameters stay float32; bf16 and fp16 are autocast's."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    channels_last: bool

    @staticmethod
    def from_config(config: RunConfig) -> Precision:
        """Raises `ConfigError` if the device is unknown or not there."""
        return Precision(_device(config.device), AUTOCAST_TYPES[config.precision], config.channels_last)

    def autocast(self) -> AbstractContextManager[None]:
        """The context a forward pass runs in."""
        return torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def loss_scaler(self) -> torch.amp.GradScaler:
        """Scales losses so that gradients do not vanish in fp16, and leaves out updates where they overflow; does
        nothing in other arithmetic.
        """
        return torch.amp.GradScaler(self.device.type, enabled=self.autocast_dtype == torch.float16)

    def place_model(self, model: nn.Module) -> nn.Module:
        """Move the model to the device and into the memory layout; in place, returned for convenience."""
        model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def place_images(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] on the device and in the memory layout."""
        images = images.to(self.device, non_blocking=True)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images


def quicker_precision() -> str:
    """The precision to prefer for speed: ``"bf16"`` where the hardware computes in it, else ``"fp32"``."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return "bf16" if supported is not None and supported() else "fp32"


def _device(name: str) -> torch.device:
    count, local_rank = processes_of_environment()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and count > 1:
        name = f"cuda:{local_rank}"
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise ConfigError(f"--device: expected auto, cpu, cuda or cuda:N, got {name!r}")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device: expected one of the {torch.cuda.device_count()} CUDA devices here, got {name!r}")
    return device
