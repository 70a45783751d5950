import os
import signal

import pytest

from ciss_fast.engine.checkpoint import checkpoint_path, load_checkpoint
from ciss_fast.engine.interruption import DeferredInterruption
from ciss_fast.engine.progress import Reporter
from ciss_fast.engine.run import train


class Interrupting(Reporter):
    """Sends this process a signal in the second iteration of a step's training."""

    def follow(self, items, total, title, status, done=0):
        for number, item in enumerate(items):
            if title == "step 0, training" and number == 1 and not done:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item


def test_interrupted_run_is_saved_and_ends_with_the_same_bits(tmp_path, tiny_config):
    settings = {"method": "ft", "task": "joint", "previews": 0}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny_config(output=str(whole), **settings), Reporter(quiet=True))
    with pytest.raises(KeyboardInterrupt, match=r"saved after 2 iterations of step 0; .*config.json --output .*broken"):
        train(tiny_config(output=str(broken), **settings), Interrupting(quiet=True))
    assert load_checkpoint(broken / "checkpoints" / "in_progress.pt").progress["state"]["iteration"] == 2
    train(tiny_config(output=str(broken), **settings), Reporter(quiet=True))
    first, second = (load_checkpoint(checkpoint_path(run, 0)) for run in (whole, broken))
    assert all(value.equal(second.model[name]) for name, value in first.model.items())
    assert first.history == second.history


def test_a_second_interruption_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), DeferredInterruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
