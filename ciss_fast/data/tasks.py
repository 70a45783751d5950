"""Tasks: which classes are learned at which step, which images belong to it, and how its labels look.

A task is written ``base-increment`` over the foreground classes: 15-1 of VOC's 20 learns 15 classes (and the
background) in step 0 and one more in each of the steps 1 to 5. The model's channels are in learning order, so
labels are looked up in tables of 256 entries: class id in, channel out.

What a step's training images are, and what their labels still say, is the *setting*:

- overlapped (Cermelli et al., MiB, CVPR 2020): every image that shows a class of the step. The default.
- disjoint (MiB): those of them that show no class of a later step.
- sequential (Michieli and Zanuttigh, "Knowledge Distillation for Incremental Learning in Semantic Segmentation", CVIU
  2021): the images of disjoint, in which the classes learned before are labelled too.
- partitioned (Kwak, Cha and Moon, "Towards Realistic Incremental Scenario in Class Incremental Semantic
  Segmentation", 2024): every image belongs to one step only. It is given to one of the classes it shows, the one
  that fewest training images show (the smaller id of two), and to that class's step.

In all but sequential a label shows the step's own classes only. What is tested does not depend on the setting.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ciss_fast.data.image_files import IGNORE
from ciss_fast.errors import ConfigError, DataError

SETTINGS = ("overlapped", "disjoint", "sequential", "partitioned")
PURPOSES = ("train", "val", "test")

TASKS = {
    "voc": ("19-1", "15-5", "15-1", "10-1", "5-3", "10-5", "10-10", "joint"),
    "ade20k": ("100-50", "50-50", "100-10", "100-5", "joint"),
}
"""Tasks that papers report on, by data set."""

TASK_ALIASES = {"15-5s": "15-1", "50": "50-50", "offline": "joint"}
"""Names that MiB's and ALIFE's code have for tasks."""


@dataclass(frozen=True)
class Task:
    """Classes by step.

    ``steps[t]`` are the class ids learned at step t, in channel order; ``steps[0]`` begins with 0
    (background).
    """

    name: str
    class_names: tuple[str, ...]
    steps: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        learned = [class_id for step in self.steps for class_id in step]
        if sorted(learned) != list(range(len(self.class_names))) or not learned or learned[0] != 0:
            raise ConfigError(
                f"task {self.name!r}: steps {self.steps}; expected each of the "
                f"{len(self.class_names)} classes once, beginning with 0"
            )
        if not all(self.steps):
            raise ConfigError(f"task {self.name!r}: steps {self.steps}; expected at least one class in each")

    @classmethod
    def parse(
        cls,
        name: str,
        num_classes: int | None = None,
        class_order: Sequence[int | str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Task:
        """The task ``name``: ``base-increment`` (foreground classes per step), ``joint`` (one step, all classes)
        or one of `TASK_ALIASES`; the task's own ``name`` is that of `task_name`.

        Args:
            num_classes: all classes, background included; not needed with ``class_names``.
            class_order: foreground class ids or names in the order they are learned; may begin with 0.
                Default: by id.
            class_names: index = class id. Default: "class 0", "class 1", ...

        Raises `ConfigError` for a name of another form, numbers that do not fit the class count, and an order
        in which classes repeat, are unknown or missing.
        """
        names = _class_names(num_classes, class_names)
        order = _class_order(names, class_order)
        name = task_name(name)
        return cls(name=name, class_names=names, steps=_split(name, order))

    @property
    def num_classes(self) -> int:
        """All classes, background included."""
        return len(self.class_names)

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    @property
    def classes_per_step(self) -> list[int]:
        """Channels that each step adds; the background counts in step 0."""
        return [len(step) for step in self.steps]

    def seen(self, step: int) -> tuple[int, ...]:
        """Class ids learned up to and including ``step``, in channel order."""
        self.check_step(step)
        return tuple(class_id for classes in self.steps[: step + 1] for class_id in classes)

    def old_classes(self, step: int) -> int:
        """Channels the model has before ``step``; 0 for step 0."""
        self.check_step(step)
        return sum(self.classes_per_step[:step])

    @cached_property
    def channel_of_class(self) -> np.ndarray:
        """int64 [num_classes]: the model's channel for each class id."""
        channels = np.empty(self.num_classes, dtype=np.int64)
        channels[list(self.seen(self.num_steps - 1))] = np.arange(self.num_classes)
        channels.flags.writeable = False
        return channels

    def check_step(self, step: int) -> None:
        """Raise `ConfigError` unless ``step`` is a step of this task."""
        if not 0 <= step < self.num_steps:
            raise ConfigError(f"task {self.name!r} has no step {step}: expected 0 to {self.num_steps - 1}")


def task_name(name: str) -> str:
    """The one spelling of a task's name: aliases replaced (see `TASK_ALIASES`), no leading zeros.

    What is no task's name comes back as it is.
    """
    name = TASK_ALIASES.get(name, name)
    match = re.fullmatch(r"([0-9]+)-([0-9]+)", name)
    return f"{int(match[1])}-{int(match[2])}" if match else name


def select_images(
    presence: np.ndarray, task: Task, step: int, setting: str = "overlapped", purpose: str = "train"
) -> np.ndarray:
    """Indices (int64, in list order) of the images of a step, as in the published VOC lists.

    - train: as the setting says, see the top of this module;
    - val: images that show a class of the step, in all settings;
    - test: images that show a class seen so far.

    An image without a foreground class belongs to no step.

    Args:
        presence: bool [N, num_classes], which image shows which class (see `class_presence`): of all images, on
            which "partitioned" depends. The background column is not looked at.
        setting: one of `SETTINGS`.
        purpose: "train", "val" or "test".

    Raises `DataError` if no image is left, `ConfigError` for an unknown step, setting or purpose.
    """
    task.check_step(step)
    check_setting(setting)
    if purpose not in PURPOSES:
        raise ConfigError(f"unknown purpose {purpose!r}: expected one of {', '.join(PURPOSES)}")
    if presence.ndim != 2 or presence.shape[1] != task.num_classes:
        raise ValueError(f"presence: expected shape [N, {task.num_classes}], got {list(presence.shape)}")
    presence = presence.astype(bool, copy=False)
    wanted = _foreground(task.seen(step) if purpose == "test" else task.steps[step])
    chosen = presence[:, wanted].any(axis=1)
    if purpose == "train" and setting in ("disjoint", "sequential"):
        later = [class_id for classes in task.steps[step + 1 :] for class_id in classes]
        chosen &= ~presence[:, later].any(axis=1)
    if purpose == "train" and setting == "partitioned":
        chosen &= np.isin(rarest_class(presence), wanted)
    indices = np.flatnonzero(chosen)
    if not len(indices):
        names = ", ".join(task.class_names[class_id] for class_id in wanted)
        raise DataError(
            f"task {task.name!r}, step {step} ({setting}, {purpose}): none of {len(presence)} images; "
            f"expected some that show {names}"
        )
    return indices


def rarest_class(presence: np.ndarray) -> np.ndarray:
    """int64 [N]: of the foreground classes that an image shows, the one that fewest images show.

    Of two such classes the smaller id; 0 for an image without a foreground class. ``presence`` as in
    `select_images`.
    """
    foreground = presence[:, 1:].astype(bool, copy=False)
    images_showing = np.where(foreground, foreground.sum(axis=0), len(presence) + 1)
    return np.where(foreground.any(axis=1), 1 + images_showing.argmin(axis=1), 0)


def check_setting(setting: str) -> None:
    """Raise `ConfigError` unless ``setting`` is one of `SETTINGS`."""
    if setting not in SETTINGS:
        raise ConfigError(f"unknown setting {setting!r}: expected one of {', '.join(SETTINGS)}")


def training_label_table(
    task: Task, step: int, setting: str = "overlapped", *, ignore_as_background: bool = False
) -> np.ndarray:
    """uint8 [256], class id → training label at ``step``.

    Classes of the step (``setting="sequential"``: and those learned before) become their channel, every other
    class 0, 255 stays 255 (``ignore_as_background``: 0, as MiB has it). In step 0 the background is class 0
    itself. Raises `ConfigError` for an unknown step or setting.
    """
    task.check_step(step)
    check_setting(setting)
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: task.num_classes] = 0
    classes = list(task.seen(step) if setting == "sequential" else task.steps[step])
    table[classes] = task.channel_of_class[classes]
    if ignore_as_background:
        table[IGNORE] = 0
    return table


def evaluation_label_table(
    task: Task, step: int, unseen: str = "background", *, ignore_background: bool = False
) -> np.ndarray:
    """uint8 [256], class id → label for testing after ``step``.

    Classes seen so far become their channel. Later ones become 0 (``unseen="background"``: PLOP, ALIFE and
    DKD on VOC) or 255 (``unseen="ignore"``: MiB, and DKD on ADE20K). ``ignore_background`` makes class 0
    itself 255 (MiB on ADE20K). 255 stays 255.
    """
    if unseen not in ("background", "ignore"):
        raise ConfigError(f"unknown treatment of unseen classes {unseen!r}: expected background or ignore")
    classes = list(task.seen(step))
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: task.num_classes] = 0 if unseen == "background" else IGNORE
    table[classes] = task.channel_of_class[classes]
    if ignore_background:
        table[0] = IGNORE
    return table


def _foreground(classes: Sequence[int]) -> list[int]:
    return [class_id for class_id in classes if class_id != 0]


def _class_names(num_classes: int | None, class_names: Sequence[str] | None) -> tuple[str, ...]:
    if class_names is None:
        if num_classes is None:
            raise ConfigError("a task needs num_classes or class_names; got neither")
        class_names = [f"class {class_id}" for class_id in range(num_classes)]
    if num_classes is not None and num_classes != len(class_names):
        raise ConfigError(
            f"num_classes is {num_classes}; expected {len(class_names)}, the number of class_names"
        )
    if not 2 <= len(class_names) <= IGNORE:
        raise ConfigError(f"{len(class_names)} classes; expected 2 to {IGNORE}, background included")
    return tuple(class_names)


def _class_order(names: tuple[str, ...], order: Sequence[int | str] | None) -> list[int]:
    """All class ids in learning order, 0 first."""
    if order is None:
        return list(range(len(names)))
    ids: list[int] = []
    for entry in order:
        if isinstance(entry, str):
            if entry not in names:
                raise ConfigError(f"class order: unknown class {entry!r}; expected one of {', '.join(names)}")
            entry = names.index(entry)
        if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)):
            raise ConfigError(f"class order: {entry!r}; expected class ids or class names")
        if not 0 <= entry < len(names):
            raise ConfigError(f"class order: unknown class {entry}; expected ids from 1 to {len(names) - 1}")
        if entry in ids:
            raise ConfigError(
                f"class order: class {entry} ({names[entry]}) repeats; expected each class once"
            )
        ids.append(int(entry))
    if 0 in ids:
        if ids[0] != 0:
            raise ConfigError(
                f"class order: class 0 stands at place {ids.index(0)}; expected the background first"
            )
    else:
        ids.insert(0, 0)
    missing = [class_id for class_id in range(len(names)) if class_id not in ids]
    if missing:
        listed = ", ".join(f"{class_id} ({names[class_id]})" for class_id in missing)
        raise ConfigError(f"class order: {len(missing)} of {len(names)} classes missing: {listed}")
    return ids


def _split(name: str, order: list[int]) -> tuple[tuple[int, ...], ...]:
    if name == "joint":
        return (tuple(order),)
    match = re.fullmatch(r"([0-9]+)-([0-9]+)", name)
    if not match:
        raise ConfigError(f"unknown task {name!r}: expected 'base-increment', for example 15-5, or 'joint'")
    base, increment = int(match[1]), int(match[2])
    foreground = len(order) - 1
    if not 1 <= base < foreground:
        raise ConfigError(
            f"task {name!r}: base of {base} classes; expected 1 to {foreground - 1} of the {foreground} "
            f"foreground classes (or 'joint' for all of them)"
        )
    rest = foreground - base
    if increment < 1 or rest % increment:
        fitting = ", ".join(f"{base}-{n}" for n in range(1, rest + 1) if rest % n == 0)
        raise ConfigError(
            f"task {name!r}: the {rest} classes after the base do not divide into steps of {increment}; "
            f"expected one of {fitting}"
        )
    later = range(base + 1, len(order), increment)
    return (tuple(order[: base + 1]), *(tuple(order[start : start + increment]) for start in later))
