"""The configuration of a run: what can be set, its defaults, and comparing two configurations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ciss_fast.data.tasks import SETTINGS
from ciss_fast.engine.settings import Affects, PerStep, convert, field_types, option
from ciss_fast.errors import ConfigError
from ciss_fast.methods.published import PUBLISHED_DATASETS
from ciss_fast.methods.settings import BATCH_NORM_CHOICES, CLASSIFIER_START_CHOICES, FEATURE_REPLAY_CHOICES


@dataclass(frozen=True)
class DataConfig:
    """Which images, in which steps, and how a training crop is made."""

    dataset: str = option("shapes", "data set by name")
    data_root: str | None = option(None, "folder of the data set; none for an embedded one", affects="nothing")
    task: str = option(  # what of it the base step depends on, its classes, checkpoints are compared by
        "6-3", "base-increment, such as 15-5; checked against the class list", affects="later"
    )
    setting: str = option("overlapped", "which images belong to a step and what their labels show", choices=SETTINGS)
    class_order: tuple[int | str, ...] | None = option(
        None, "class ids or names in learning order, background left out"
    )
    data_option: dict[str, Any] = option({}, "option of the data set itself, such as image_size_px=64")
    crop_size: int = option(512, "side of a training crop in pixels", minimum=16)
    scale_min: float = option(0.5, "smallest area of a random crop, as a part of the image's area", above=0)
    scale_max: float = option(2.0, "largest area of a random crop, as a part of the image's area", above=0)
    flip: bool = option(True, "mirror half of the training images")
    batch_size: int | None = option(None, "training images per iteration", minimum=1, published=True)
    cache_images: bool = option(False, "keep decoded training images in memory, as far as they fit", affects="nothing")
    cache_megabytes: float | None = option(
        None, "most memory of a process for that; none: half of what is free at the start", minimum=0, affects="nothing"
    )
    workers: int = option(0, "processes that load training images", minimum=0, affects="nothing")


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = option("resnet101", "feature extractor by name")
    weights: str | None = option("imagenet", "backbone's weights: imagenet (downloaded), a file, or none")
    output_stride: int = option(16, "image pixels per feature pixel: 8 or 16", minimum=8)
    head_channels: int = option(256, "channels of ASPP and of the features a classifier reads", minimum=1)
    dilate_first_block: bool = option(
        False, "a dilated stage's first block takes the stage's dilation too, as in ALIFE's reference network"
    )
    dropout: float | None = option(
        None, "dropout after the ASPP projection at the base step", minimum=0, published=True
    )
    align_corners: bool | None = option(None, "how logits are enlarged to the label's size", published=True)


OPTIMISERS = ("sgd", "adamw")


@dataclass(frozen=True)
class OptimisationConfig:
    """Optimiser, learning rates and their schedule."""

    optimiser: str = option("sgd", "optimiser", choices=OPTIMISERS)
    later_optimiser: str | None = option(
        None,
        "that of later steps, ALIFE-M's last stage included; none: as at the base step",
        choices=OPTIMISERS,
        affects="later",
    )
    epochs_base: float | None = option(None, "passes over the base step's images", above=0, published=True)
    epochs_later: PerStep | None = option(
        None, "the same for later steps, one or one a step", above=0, affects="later", published=True
    )
    lr_base: float | None = option(None, "learning rate of the base step", above=0, published=True)
    lr_later: PerStep | None = option(
        None, "learning rate of later steps, one or one a step", above=0, affects="later", published=True
    )
    backbone_lr_multiplier: float | None = option(
        None, "times the learning rate: the backbone", minimum=0, published=True
    )
    head_lr_multiplier: float | None = option(
        None, "times the learning rate: ASPP and head", minimum=0, published=True
    )
    new_classifier_lr_multiplier: float | None = option(
        None, "times the learning rate: the step's own classifier", minimum=0, published=True
    )
    later_backbone_lr_multiplier: float | None = option(
        None, "the backbone's at later steps; none: as at the base step", minimum=0, affects="later"
    )
    later_head_lr_multiplier: float | None = option(None, "the same for ASPP and head", minimum=0, affects="later")
    later_new_classifier_lr_multiplier: float | None = option(
        None, "the same for the step's own classifier", minimum=0, affects="later"
    )
    old_classifiers_lr_multiplier: float | None = option(
        None, "times the learning rate: classifiers of earlier steps", minimum=0, affects="later", published=True
    )
    momentum: float = option(0.9, "momentum of SGD (Nesterov)", minimum=0)
    weight_decay: float = option(1e-4, "weight decay", minimum=0)
    weight_decay_exemptions: bool = option(
        True, "leave parameters out of weight decay where the method does (DKD at later steps)", affects="later"
    )
    poly_power: float = option(0.9, "learning rate x (1 - iteration / iterations) ^ power", minimum=0)
    warmup: float | None = option(
        None, "part of a step's iterations with linear warm-up", minimum=0, published=True
    )
    warmup_start: float = option(1e-3, "factor at which the warm-up starts", minimum=0)
    accumulate: int = option(
        1, "parts a batch is split into, one in memory at a time; an update takes the sum of their gradients", minimum=1
    )
    region_means: str = option(
        "part",
        "losses that are means over a region of the label (ALIFE's ALI and KD): over each process's and part's own, as "
        "published, or over that of the whole batch, with which processes and parts change nothing but rounding",
        choices=("part", "batch"),
        affects="later",
    )
    clip_norm: float | None = option(None, "largest norm of the whole gradient; none for no limit", above=0)
    freeze_batch_norm: str = option(
        "published",
        "batch norms that keep statistics and affine values: as the method has it, these and the "
        "backbone's at every step, the backbone's only, all at every step, or none",
        choices=BATCH_NORM_CHOICES,
    )
    later_freeze_batch_norm: str | None = option(
        None, "the same for later steps; none: as at the base step", choices=BATCH_NORM_CHOICES, affects="later"
    )
    backbone_batch_norm_momentum: float | None = option(
        None, "how fast running statistics of the backbone's batch norms follow", above=0, published=True
    )
    dropout_at_later_steps: bool = option(False, "keep dropout on after the base step", affects="later")


@dataclass(frozen=True)
class MethodConfig:
    """The incremental method and the weights of its loss terms."""

    method: str = option("alife", "incremental method by name", affects="later")
    loss_weight: dict[str, PerStep] = option(
        {},
        "weight of a loss term, one or one a later step (ali=3,5,2); the published ones by default; terms of "
        "other methods are left out",
        affects="later",
    )
    published_for: str | None = option(
        None,
        "data set whose published values settings take that are left out: voc or ade20k; none: by the data set's "
        "name",
        choices=PUBLISHED_DATASETS,
        affects="nothing",
    )
    new_classifier_start: str = option(
        "published",
        "what a new classifier starts from: as the method has it (background, auxiliary classifier) or random",
        choices=CLASSIFIER_START_CHOICES,
        affects="later",
    )
    unbiased_terms: bool = option(
        False, "ALIFE: MiB's CCE and CKD in place of CE and KD (an ablation)", affects="later"
    )
    alpha: float = option(1.0, "MiB: multiplies the teacher's logits in CKD", above=0, affects="later")
    pos_weight_base: float | None = option(
        None, "DKD: weight of positive pixels in mBCE at the base step", above=0, published=True
    )
    pos_weight_later: float | None = option(
        None, "DKD: the same at later steps", above=0, affects="later", published=True
    )
    memory_images: int | None = option(
        None, "DKD-M: images of earlier steps that are replayed", minimum=0, affects="later", published=True
    )


@dataclass(frozen=True)
class ReplayConfig:
    """ALIFE-M: the memory of features and the stages that replay them."""

    feature_replay: str = option(
        "rotated",
        "features of old classes are rotated into the new feature space, replayed as they are, or there is no memory",
        choices=FEATURE_REPLAY_CHOICES,
        affects="later",
    )
    features_per_class: int = option(1000, "features kept of every class", minimum=1, affects="later")
    rotation_epochs: float = option(10.0, "passes over a step's images to fit the rotations", above=0, affects="later")
    rotation_lr: float = option(1e-2, "learning rate of the rotations (Adam)", above=0, affects="later")
    rotation_weight_decay: float = option(1e-4, "weight decay of the rotations", minimum=0, affects="later")
    rotation_weight: float | None = option(
        None, "weight of FID, REG having the rest (lambda_ROT)", minimum=0, affects="later", published=True
    )
    rotation_group: int = option(
        12, "images whose positions share a prototype's softmax; a larger batch is split", minimum=1, affects="later"
    )
    replay_epochs: float = option(1.0, "passes over a step's images to train the classifiers", above=0, affects="later")
    replay_lr: float = option(1e-3, "learning rate of the classifiers in that stage", above=0, affects="later")
    keep_megabytes: float = option(
        4000.0, "memory for feature maps that the classifiers' stage need not compute again", minimum=0,
        affects="nothing",
    )  # fmt: skip


@dataclass(frozen=True)
class EvaluationConfig:
    """How a model is scored after every step."""

    unseen: str = option(
        "background",
        "classes of later steps count as background or are ignored",
        choices=("background", "ignore"),
        affects="later",
    )
    ignore_background: bool = option(
        False, "pixels of class 0 take no part in the scores (MiB on ADE20K)", affects="later"
    )
    eval_crop: int | None = option(
        None, "shorter side and centre crop of test images; none: own size", minimum=16, affects="later"
    )
    eval_batch_size: int = option(8, "test images of one size scored together", minimum=1, affects="nothing")


@dataclass(frozen=True)
class RunConfig:
    """Where and how it is computed."""

    output: str | None = option(None, "results folder; none: named after the run, in runs/", affects="nothing")
    base_from: str | None = option(None, "results folder whose base step is taken over", affects="nothing")
    seed: int = option(0, "seed of everything random", minimum=0)
    precision: str = option(
        "fp32", "arithmetic of the network; fp16 comes with loss scaling", choices=("fp32", "bf16", "fp16")
    )
    channels_last: bool = option(True, "memory layout of the network's tensors")
    compile: bool = option(False, "train through torch.compile, which takes a minute or more at the start of a step")
    device: str = option("auto", "cpu, cuda, cuda:1, or auto: a GPU if there is one", affects="nothing")
    threads: int | None = option(None, "CPU threads; none leaves torch's choice", minimum=1, affects="nothing")
    save_minutes: float = option(
        10.0, "longest time between two saves of a step under way; long epochs are saved at their end too", above=0,
        affects="nothing",
    )  # fmt: skip
    save_every: int | None = option(
        None, "save a step under way after every so many iterations too", minimum=1, affects="nothing"
    )
    log_every: int = option(10, "iterations between two entries of the loss log", minimum=1, affects="nothing")
    wandb: bool = option(
        False, "send the curves to Weights & Biases too; WANDB_MODE=offline keeps them in the results folder",
        affects="nothing",
    )  # fmt: skip
    wandb_project: str = option("ciss_fast", "project that --wandb sends to", affects="nothing")
    previews: int = option(4, "images shown in predictions.png", minimum=0, affects="later")


@dataclass(frozen=True)
class Config:
    """A whole run. Every setting has one name over all sections, so an option needs no section prefix."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimisation: OptimisationConfig = dataclasses.field(default_factory=OptimisationConfig)
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain dictionaries by section, with lists for tuples: what JSON and a checkpoint hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @staticmethod
    def from_dict(values: Mapping[str, Any], source: str = "configuration") -> Config:
        """The inverse of `to_dict`; settings left out have their defaults.

        Raises `ConfigError` naming ``source`` for an unknown section or setting, a wrong type or value.
        """
        return Config().updated(values, source)

    def updated(self, values: Mapping[str, Any], source: str) -> Config:
        """A copy with the settings of ``values`` (by section, as in a recipe) replaced."""
        sections = {}
        for section, entries in values.items():
            current = getattr(self, section, None) if section in _section_names() else None
            if current is None:
                raise ConfigError(
                    f"{source}: unknown section [{section}], expected one of {', '.join(_section_names())}"
                )
            if not isinstance(entries, Mapping):
                raise ConfigError(f"{source}: expected [{section}] to be a table, got {entries!r}")
            sections[section] = _update_section(
                current, entries, lambda name, where=section: f"{source}: [{where}] {name}"
            )
        return dataclasses.replace(self, **sections)

    def with_settings(self, values: Mapping[str, Any]) -> Config:
        """A copy with settings replaced by bare name, as on the command line.

        Raises `ConfigError` naming the option (``--lr-base``) for a wrong value or an unknown name.
        """
        section_of = {field.name: section for section, field, _ in all_settings()}
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in section_of:
                raise ConfigError(f"{option_name(name)}: unknown setting")
            sections.setdefault(section_of[name], {})[name] = value
        return dataclasses.replace(
            self,
            **{
                section: _update_section(getattr(self, section), entries, option_name)
                for section, entries in sections.items()
            },
        )


def _update_section(section: Any, values: Mapping[str, Any], source_of: Any) -> Any:
    fields = {field.name: field for field in dataclasses.fields(section)}
    declared = field_types(type(section))
    converted = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"{source_of(name)}: unknown setting, expected one of {', '.join(fields)}")
        converted[name] = convert(fields[name], declared[name], value, source_of(name))
        if isinstance(converted[name], dict):
            converted[name] = {**getattr(section, name), **converted[name]}
    return dataclasses.replace(section, **converted)


def _section_names() -> list[str]:
    return [field.name for field in dataclasses.fields(Config)]


def all_settings() -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Every setting as (section, field, declared type), in order."""
    for section in dataclasses.fields(Config):
        section_type = type(section.default_factory())  # type: ignore[misc]
        declared = field_types(section_type)
        for field in dataclasses.fields(section_type):
            yield section.name, field, declared[field.name]


def option_name(name: str) -> str:
    """The command line's spelling of a setting: ``lr_base`` is ``--lr-base``."""
    return "--" + name.replace("_", "-")


def first_difference(stored: Mapping[str, Any], current: Config, affects: tuple[Affects, ...]) -> str | None:
    """The first setting of the given kinds in which two configurations differ, as text for an error.

    ``stored`` is a `Config.to_dict`, maybe written by another version: a setting it lacks counts as its
    default. Returns e.g. ``"lr_base is 0.01 there and 0.02 here"``, or None if there is no such difference.
    """
    defaults, wanted = Config().to_dict(), current.to_dict()
    for section, field, _ in all_settings():
        if field.metadata["affects"] not in affects:
            continue
        there = stored.get(section, {}).get(field.name, defaults[section][field.name])
        here = wanted[section][field.name]
        if there != here:
            return f"{field.name} is {there!r} there and {here!r} here"
    return None
