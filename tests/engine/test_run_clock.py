"""How much of a run is planned, and how much of its time is left."""

import itertools

import pytest

from ciss_fast.engine.plan import make_plan
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.results import ResultsFolder
from ciss_fast.engine.run import train
from ciss_fast.engine.run_clock import RunClock, Work
from ciss_fast.engine.workload import planned_work


@pytest.fixture
def ticking(monkeypatch):
    """A clock that stands still but for what is added to its only entry."""
    now = [0.0]
    monkeypatch.setattr("ciss_fast.engine.run_clock.time.monotonic", lambda: now[0])
    return now


def pass_on(clock, now, seconds, total, done=0, stop=None):
    for number in clock.follow(range(done, total), total, done):
        if number == stop:
            break
        now[0] += seconds


def test_time_left_follows_from_what_was_measured(ticking):
    clock = RunClock([Work(0, "train", 80, 10), Work(0, "test", 20), Work(1, "train", 40, 5), Work(1, "test", 30)])
    assert clock.seconds_left() is None
    clock.begin(0, "train")
    pass_on(clock, ticking, 4.0, 10, stop=5)  # 8 images each
    # Guessed: testing takes a third, training with a teacher a third more.
    assert clock.seconds_left() == pytest.approx(0.5 * (40 + 20 / 3 + 40 * 4 / 3 + 30 / 3))
    pass_on(clock, ticking, 4.0, 10, done=5)
    clock.begin(0, "test")
    pass_on(clock, ticking, 1.0, 4)  # 20 images in 4 batches
    assert clock.seconds_left() == pytest.approx(0.5 * 40 * 4 / 3 + 0.2 * 30)
    clock.begin(1, "train")
    pass_on(clock, ticking, 16.0, 5, stop=1)  # slower, with a teacher: a kind of its own
    assert clock.seconds_left() == pytest.approx(2.0 * 32 + 0.2 * 30)
    assert clock.seconds_left(1) == clock.seconds_left() and clock.seconds_left(0) == 0


def test_a_loop_that_goes_on_counts_what_it_does_itself(ticking):
    clock = RunClock([Work(0, "train", 100, 10)])
    clock.begin(0, "train")
    pass_on(clock, ticking, 3.0, 10, done=6, stop=8)
    assert clock.seconds_left() == pytest.approx(0.3 * 20)


def test_stages_of_an_earlier_session_give_their_pace(ticking):
    clock = RunClock([Work(0, "train", 50, 5), Work(1, "train", 50, 5), Work(1, "test", 10)])
    clock.finish(0, [{"name": "train", "seconds": 25.0}, {"name": "unknown", "seconds": 3.0}])
    assert clock.seconds_left() == pytest.approx(0.5 * (50 * 4 / 3 + 10 / 3))
    clock.skip(1, "test")
    assert clock.seconds_left() == pytest.approx(0.5 * 50 * 4 / 3)


def test_loops_that_belong_to_no_work_are_only_passed_on(ticking):
    clock = RunClock([Work(0, "train", 50, 5)])
    clock.begin(3, "train")
    assert list(clock.follow("abc", 3)) == ["a", "b", "c"] and clock.seconds_left() is None


class Watching(Reporter):
    """Notes how many images are left at the start of every loop, and that all were done in the end."""

    def __init__(self):
        super().__init__(quiet=True)
        self.left = []

    def follow(self, items, total, title, status, done=0):
        key = self.clock._current
        work = self.clock.work[key]
        if work.iterations:
            assert total == work.iterations, title
        self.left.append((*key, sum(self.clock.work[other].images * part for other, part in self.clock.left.items())))
        yield from super().follow(items, total, title, status, done)


@pytest.mark.parametrize("method", ["alife-m", "dkd-m"])
def test_planned_work_is_what_a_run_does(tmp_path, tiny_config, method):
    """The numbers of iterations of every loop, and nothing left at the end."""
    config = tiny_config(
        output=str(tmp_path / "run"), method=method, features_per_class=3, rotation_epochs=1, memory_images=4,
        previews=0, epochs_base=2, epochs_later=1.5,
    )  # fmt: skip
    reporter = Watching()
    train(config, reporter)
    work = planned_work(make_plan(config, Reporter(quiet=True)))
    assert [item for item, _ in itertools.groupby(reporter.left, lambda entry: entry[:2])] == [
        (item.step, item.name) for item in work if item.images
    ]
    remaining = [left for *_, left in reporter.left]
    assert remaining[0] == sum(item.images for item in work) and remaining == sorted(remaining, reverse=True)
    assert reporter.clock.seconds_left() == 0
    for entry in ResultsFolder(tmp_path / "run").read_metrics()["steps"]:
        for stage in entry["stages"]:
            assert stage["iterations"] == reporter.clock.work[entry["step"], stage["name"]].iterations
