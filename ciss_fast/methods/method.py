"""What every incremental method answers: losses, initialisation, what is frozen, optimiser groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..models import SegmentationModel, SegmentationOutput
from .settings import MethodSettings
from .stage import TRAIN, Stage

if TYPE_CHECKING:
    from ..data.tasks import Task

LossAndTerms = tuple[Tensor, dict[str, Tensor]]


class Method(ABC):
    """An incremental method; it holds no state. Step 0 is the base step, later steps have an old model.

    A step of training is: the teacher is ``model.frozen_copy()`` if `needs_teacher`; then `prepare_step`, and
    the `stages` one after another. The stage "train" is `set_train_mode` (again after every evaluation),
    `parameter_groups` for the optimiser, and `loss` per batch.

    A new method sets ``name`` and ``loss_terms`` and writes `loss`; the rest has the plain behaviour by
    default.
    """

    name: str
    loss_terms: tuple[str, ...] = ()
    """The terms whose weights the recipe gives in ``MethodSettings.loss_weights``."""
    prediction_kind: str = "softmax"
    """How logits become classes: the ``kind`` of `ciss_fast.predict` and `ciss_fast.confusion`."""
    uses_auxiliary_classifier: bool = False
    """Whether the model is built with an auxiliary classifier in channel 0 (see `build_model`)."""
    feature_memory: bool = False
    """Whether features of every class are kept for later steps, which needs images of every class."""
    image_memory: bool = False
    """Whether images of earlier steps join the training images of later ones; `stages` then begins with SELECT."""
    lr_multipliers: Mapping[str, float] = MappingProxyType({})
    """Published learning-rate multipliers by parameter group; 1 for a group that is not named."""
    align_corners: bool = True
    """How the published method enlarges logits to the label's size."""
    dropout: float = 0.5
    """Published dropout after the ASPP projection at the base step."""
    backbone_batch_norm_momentum: float = 0.1
    """Published momentum of the backbone's batch norms; 0.1 is PyTorch's."""

    def check_settings(self, settings: MethodSettings, num_steps: int) -> None:
        """Check that ``loss_weights`` has this method's terms, and a list one value for each later step.

        Raises `ConfigError` otherwise.
        """
        given, expected = sorted(settings.loss_weights), sorted(self.loss_terms)
        if given != expected:
            wanted = ", ".join(expected) or "none"
            raise ConfigError(
                f"loss weights of {self.name}: expected {wanted}, got {', '.join(given) or 'none'}"
            )
        for term, weight in settings.loss_weights.items():
            if not isinstance(weight, (int, float)) and len(weight) != num_steps - 1:
                wanted = f"one value or {num_steps - 1}, one per later step"
                raise ConfigError(f"loss weight {term!r}: expected {wanted}, got {len(weight)}")

    def regions(self, settings: MethodSettings) -> Mapping[str, str]:
        """Terms that are means over a region of the label, "unlabelled" or "not_unlabelled"; others are over all."""
        return {}

    def stages(self, step: int) -> tuple[Stage, ...]:
        """What is done, in this order, to train a step: by default its images with `loss`, nothing else."""
        return (TRAIN,)

    def needs_teacher(self, step: int) -> bool:
        """Whether `loss` reads the previous step's model at this step."""
        return False

    def steps_of(self, task: Task) -> Task:
        """The task to train: ``task`` itself, except for joint training."""
        return task

    def label_options(self, step: int) -> dict[str, bool]:
        """Keyword arguments of `ciss_fast.data.training_label_table` that this method wants."""
        return {}

    def prepare_step(
        self, model: SegmentationModel, step: int, num_new: int, settings: MethodSettings | None = None
    ) -> None:
        """Give ``model`` the classifier of ``step`` and its starting values; nothing to do at the base step.

        ``num_new``: channels the step brings; at the base step channel 0 counts. ``settings`` is read for
        ``new_classifier_start``; None is the published start. Take the teacher's copy before: initialisation
        may change the old classifiers too. Raises `ValueError` if the model does not stand at the end of the
        step before, or has an auxiliary classifier where the method has none (or the other way round).
        """
        if (model.auxiliary is not None) != self.uses_auxiliary_classifier:
            wanted, got = ("one", "none") if self.uses_auxiliary_classifier else ("none", "one")
            raise ValueError(f"model: auxiliary classifier: {self.name} expected {wanted}, got {got}")
        existing = len(model.classifiers)
        if step == 0:
            if model.classes_per_step != [num_new]:
                raise ValueError(f"model: expected one classifier of {num_new}, got {model.classes_per_step}")
            return
        if existing != step:
            raise ValueError(f"model: expected {step} classifiers before step {step}, got {existing}")
        model.add_classifier(num_new)
        if settings is None or settings.new_classifier_start == "published":
            self.initialise_classifier(model)

    def initialise_classifier(self, model: SegmentationModel) -> None:
        """Set the starting values of the newest classifier; by default PyTorch's stay."""
        return

    def frozen_batch_norm_parts(self, model: SegmentationModel, step: int) -> list[nn.Module]:
        """The parts of the model whose batch norms the published method freezes at this step."""
        return []

    def groups_without_weight_decay(self, step: int) -> tuple[str, ...]:
        """The parameter groups that the published method leaves out of weight decay at this step."""
        return ()

    def set_train_mode(self, model: SegmentationModel, step: int, settings: MethodSettings) -> None:
        """Training mode, except for frozen batch norms and, at later steps, dropout; batch-norm momentum.

        A frozen batch norm normalises with its running statistics, which stay. Its affine parameters and the
        groups with a learning-rate multiplier of 0 get ``requires_grad=False``; every other parameter of the
        model gets ``requires_grad=True``.
        """
        model.train()
        for name, modules in self._groups(model).items():
            for module in modules:
                module.requires_grad_(self._lr_multiplier(name, settings) > 0)
        for norm in batch_norms(model.backbone):
            norm.momentum = self.backbone_batch_norm_momentum
            if settings.backbone_batch_norm_momentum is not None:
                norm.momentum = settings.backbone_batch_norm_momentum
        for norm in self._frozen_batch_norms(model, step, settings):
            norm.eval().requires_grad_(False)
        if step > 0 and not settings.dropout_at_later_steps:
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.eval()

    def parameter_groups(
        self, model: SegmentationModel, step: int, settings: MethodSettings, learning_rate: float
    ) -> list[dict[str, Any]]:
        """The optimiser's groups: backbone, head (ASPP and 3x3 convolution), old_classifiers, new_classifier.

        The auxiliary classifier, where there is one, goes with the other classifiers: with the new one at the
        base step, with the old ones later. Each group is a dict of "name", "params", "lr" (``learning_rate``
        times the group's multiplier) and, if the method leaves it out of weight decay, "weight_decay" 0 (the
        optimiser's own holds for the others); a group without trainable parameters is left out. Every
        parameter that requires a gradient after `set_train_mode`, which must have been called for this step,
        is in exactly one. Raises `ValueError` if the model does not have one classifier per step up to this
        one.
        """
        if len(model.classifiers) != step + 1:
            raise ValueError(
                f"model: expected {step + 1} classifiers at step {step}, got {len(model.classifiers)}"
            )
        groups: list[dict[str, Any]] = []
        for name, modules in self._groups(model).items():
            parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
            if parameters:
                multiplier = self._lr_multiplier(name, settings)
                groups.append({"name": name, "params": parameters, "lr": learning_rate * multiplier})
                if settings.weight_decay_exemptions and name in self.groups_without_weight_decay(step):
                    groups[-1]["weight_decay"] = 0.0
        if not groups:
            raise ConfigError("learning-rate multipliers: expected at least one above 0, got 0 for every group")
        return groups

    @abstractmethod
    def loss(
        self,
        student: SegmentationOutput,
        teacher: SegmentationOutput | None,
        label: Tensor,
        step: int,
        settings: MethodSettings,
    ) -> LossAndTerms:
        """The loss of a batch and its terms for logging.

        student, teacher: outputs at network resolution; the teacher's is read where `needs_teacher` says so.
        label: [B, H, W] integer, this step's channels, 0 unlabelled (base step: background), 255 ignored.
        Returns (scalar with gradient, detached scalars by name) as `ciss_fast.softmax_loss` does.
        """

    @staticmethod
    def _groups(model: SegmentationModel) -> dict[str, list[nn.Module]]:
        """The parts of the model by parameter group."""
        groups = {
            "backbone": [model.backbone],
            "head": [model.aspp, model.head],
            "old_classifiers": list(model.classifiers[:-1]),
            "new_classifier": [model.classifiers[-1]],
        }
        if model.auxiliary is not None:
            groups["old_classifiers" if groups["old_classifiers"] else "new_classifier"].append(model.auxiliary)
        return groups

    def _lr_multiplier(self, group: str, settings: MethodSettings) -> float:
        given = getattr(settings, f"{group}_lr_multiplier")
        return self.lr_multipliers.get(group, 1.0) if given is None else given

    def _frozen_batch_norms(
        self, model: SegmentationModel, step: int, settings: MethodSettings
    ) -> Iterator[nn.Module]:
        parts: list[nn.Module] = []
        if settings.freeze_batch_norm in ("published", "backbone"):
            parts += self.frozen_batch_norm_parts(model, step)
        if settings.freeze_batch_norm in ("backbone", "backbone_only"):
            parts.append(model.backbone)
        if settings.freeze_batch_norm == "all":
            parts.append(model)
        for part in parts:
            yield from batch_norms(part)


def batch_norms(part: nn.Module) -> Iterator[nn.Module]:
    """All batch norms in a part of a model."""
    return (module for module in part.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)))
