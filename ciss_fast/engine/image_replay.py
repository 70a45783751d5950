"""DKD-M's image memory in a run: which images of earlier steps a step replays, chosen before it is trained.

The memory of step t is ``memory/step_t.json`` in the run's folder, a list that people can read; see
`ciss_fast.memory.image_memory` for how it is chosen.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from ciss_fast.data import StepBatches
from ciss_fast.engine.seeding import SELECTION, step_seed
from ciss_fast.memory.image_classes import image_classes
from ciss_fast.memory.image_memory import ImageMemory, gather_candidates, replayed_images, select_memory
from ciss_fast.memory.image_memory_file import load_image_memory, save_image_memory

if TYPE_CHECKING:
    from ciss_fast.engine.stages import StageContext

SUFFIX = ".json"


def select_images(context: StageContext) -> None:
    """Choose the images that the context's step (from 1) replays and write the list.

    Candidates are the training images of the step before, with the classes that one training crop of each shows,
    and the memory before. From step 2 on unlabelled pixels take the classes that the teacher is sure of.
    """
    plan, step = context.plan, context.step
    task, config, data = plan.training_task, plan.config, plan.train_data
    carried = _memory_of(context, step - 1).images if step > 1 else ()
    ids = [data.ids[index] for index in plan.training_images[step - 1]]
    candidates = gather_candidates(ids, _shown_classes(context), step - 1, carried)
    rng = np.random.default_rng(step_seed(config.run.seed, step, SELECTION))
    chosen = select_memory(candidates, task.seen(step - 1), config.method.memory_images, rng)
    memory = ImageMemory(step, config.method.memory_images, config.data.dataset, data.fingerprint, chosen)
    path = save_image_memory(context.memory_path(step, SUFFIX), memory, data.class_names)
    context.reporter.message(f"step {step}: {len(chosen)} images of earlier steps are replayed, see {path}")
    counts = Counter(image.chosen_for for image in chosen)
    context.results.update(
        memory_images=len(chosen),
        memory_bytes=sum(data.image_bytes(int(index)) for index in replayed_images(memory, data.ids)),
        memory_images_by_class={data.class_names[class_id]: counts[class_id] for class_id in sorted(counts)},
    )


def images_to_replay(context: StageContext) -> np.ndarray:
    """Indices in the training data of the images that the context's step replays.

    Raises `CheckpointError` or `DataError` if the list is missing, damaged or belongs to other data.
    """
    return replayed_images(_memory_of(context, context.step), context.plan.train_data.ids)


def _memory_of(context: StageContext, step: int) -> ImageMemory:
    plan = context.plan
    path = context.memory_path(step, SUFFIX)
    return load_image_memory(path, step, plan.train_data, plan.config.data.dataset)


def _shown_classes(context: StageContext) -> list[tuple[int, ...]]:
    """The classes that each training image of the step before counts for; goes on where an interrupted stage was."""
    plan, step, progress = context.plan, context.step, context.progress
    images, data = plan.training_set(step - 1, stream=SELECTION), plan.config.data
    shown = [tuple(classes) for classes in progress.state["shown"]] if progress.state is not None else []

    def state() -> dict[str, list[tuple[int, ...]]]:
        return {"shown": shown}

    loader = DataLoader(
        images,
        batch_size=data.batch_size,
        sampler=range(len(shown), len(images)),
        num_workers=data.workers,
        generator=torch.Generator().manual_seed(0),
    )
    batches = iter(StepBatches(loader))
    followed = context.reporter.follow(
        batches, len(shown) // data.batch_size + len(loader), f"step {step}, selection", {},
        done=len(shown) // data.batch_size,
    )  # fmt: skip
    with closing(batches), closing(followed):
        for batch in followed:
            with context.precision.autocast():
                shown += image_classes(
                    [batch],
                    plan.training_task.seen(step - 1),
                    context.teacher if step > 1 else None,
                    align_corners=context.settings.align_corners,
                )
            progress.save_if_due(len(shown), False, state)
    return shown
