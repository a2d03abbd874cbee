"""What tests of whole runs need: runs that break off, and weights to compare."""

import pytest
import torch


class Interrupted(Exception):
    pass


def weights(trainer):
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def interrupt(trainer, epoch):
    """Train, and die after the hooks of the given epoch (counted from 1)."""
    after_epoch = trainer.after_epoch

    def die():
        after_epoch()
        if trainer.epoch + 1 == epoch:
            raise Interrupted

    trainer.after_epoch = die
    with pytest.raises(Interrupted):
        trainer.train()
    trainer.close_writer()
