"""``ciss-fast predict``: label maps of images, as index images and painted over the images."""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ciss_fast.errors import ConfigError


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("predict", help="segment images with a trained model", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="results folder (its last step), .pt or .safetensors file")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file")
    parser.add_argument("--output", metavar="FOLDER", default="predictions", help="default: %(default)s")
    parser.add_argument("--opacity", type=float, default=0.6, metavar="X", help="of the overlay's colours, 0 to 1")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto (default)")
    parser.add_argument("--precision", default="fp32", metavar="fp32|bf16|fp16", help="arithmetic, default fp32")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write NAME_classes.png (pixel value = class id, Pascal VOC's palette) and NAME_overlay.png for every image."""
    import torch

    from ciss_fast.data import normalise
    from ciss_fast.data.image_files import read_image
    from ciss_fast.engine.config import Config
    from ciss_fast.engine.evaluate import predict_images
    from ciss_fast.engine.precision import Precision
    from ciss_fast.engine.progress import Reporter
    from ciss_fast.engine.trained_model import find_checkpoint, load_any_checkpoint, model_of
    from ciss_fast.methods import get_method
    from ciss_fast.palette import class_palette, index_image

    if not 0 <= arguments.opacity <= 1:
        raise ConfigError(f"--opacity: expected 0 to 1, got {arguments.opacity}")
    targets = _targets([Path(image) for image in arguments.images], Path(arguments.output))
    settings = {"device": arguments.device, "precision": arguments.precision}
    precision = Precision.from_config(Config().with_settings(settings).run)
    path = find_checkpoint(arguments.model)
    checkpoint = load_any_checkpoint(path)
    model, config = model_of(checkpoint, path)
    precision.place_model(model)
    kind = get_method(checkpoint.method).prediction_kind
    align_corners = bool(config.model.align_corners)
    class_of_channel = np.array(checkpoint.channel_order, dtype=np.uint8)
    palette = class_palette()
    reporter = Reporter(quiet=arguments.quiet)
    for image, (classes_path, overlay_path) in reporter.follow(targets.items(), len(targets), "predicting", {}):
        pixels = read_image(image)
        with torch.inference_mode():
            (channels,) = predict_images(
                model, [normalise(pixels)], precision, align_corners=align_corners, kind=kind
            )
        classes = class_of_channel[channels]
        painted = np.where(
            (classes == 0)[..., None], pixels, pixels + arguments.opacity * (palette[classes] - pixels.astype(float))
        )
        _save(classes_path, index_image(classes))
        _save(overlay_path, _image(np.rint(painted).astype(np.uint8)))
        shown = [checkpoint.class_names[class_id] for class_id in np.unique(classes)]
        reporter.message(f"{image}: {', '.join(shown)}; {classes_path}, {overlay_path.name}")


def _targets(images: list[Path], folder: Path) -> dict[Path, tuple[Path, Path]]:
    """Where the two pictures of every image go; an error if two would go to one place, or over an image."""
    targets: dict[Path, tuple[Path, Path]] = {}
    owner: dict[Path, Path] = {}
    sources = {image.resolve() for image in images}
    for image in images:
        pair = folder / f"{image.stem}_classes.png", folder / f"{image.stem}_overlay.png"
        for target in pair:
            if target.resolve() in sources:
                raise ConfigError(f"--output: {target} is one of the images; expected another folder")
            if target in owner:
                raise ConfigError(f"images: expected different names, got {owner[target]} and {image}")
            owner[target] = image
        targets[image] = pair
    return targets


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _save(path: Path, picture: Any) -> None:
    from ciss_fast.atomic_files import atomic_write

    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    atomic_write(path, lambda file: file.write(buffer.getvalue()))
