"""What a run has to do, in images that go through the network."""

from __future__ import annotations

from ciss_fast.engine.feature_replay import iterations_of
from ciss_fast.engine.plan import Plan
from ciss_fast.engine.run_clock import TEST, Work
from ciss_fast.engine.train_step import step_epochs


def planned_work(plan: Plan) -> list[Work]:
    """All work of a run, in order. Stages that this function does not know count as nothing."""
    work = []
    for step in range(plan.num_steps):
        work += [_stage_work(plan, step, stage.name) for stage in plan.method.stages(step)]
        work.append(Work(step, TEST, len(plan.test_images[step])))
    return work


def _stage_work(plan: Plan, step: int, name: str) -> Work:
    config, count = plan.config, len(plan.training_images[step])
    rotates = config.replay.feature_replay == "rotated"
    if name == "train":
        replayed = (config.method.memory_images or 0) if plan.method.image_memory and step > 0 else 0
        return _loop_work(plan, step, name, step_epochs(config, step), count + replayed)
    if name == "rotations":
        return _loop_work(plan, step, name, config.replay.rotation_epochs if rotates else 0, count)
    if name == "classifiers":
        return _loop_work(plan, step, name, config.replay.replay_epochs, count)
    if name == "features" and config.replay.feature_replay != "none" and step < plan.num_steps - 1:
        return Work(step, name, config.replay.features_per_class * len(plan.training_task.steps[step]))
    if name == "selection":
        return Work(step, name, len(plan.training_images[step - 1]))
    return Work(step, name, 0)


def _loop_work(plan: Plan, step: int, name: str, epochs: float, count: int) -> Work:
    batch = min(plan.config.data.batch_size, count)
    iterations = iterations_of(epochs, range(count // batch)) if epochs else 0
    return Work(step, name, iterations * batch, iterations)
