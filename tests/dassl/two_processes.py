"""What test_distributed.py starts with torchrun: checks of gradients, then the toy run.

two_processes.py OUTPUT_DIR DATA STOP_AFTER [KEY VALUE ...]
"""

import math
import sys

import torch
from conftest import SteadyTrainer, toy_cfg

from dassl.engine import build_trainer
from dassl.utils import distributed, set_random_seed, setup_logger


def check_gradients():
    """Several backward passes for one step, unequal weights, and an overflow in one process."""
    rank = distributed.rank()
    w = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([w], lr=1.0)
    distributed.average_gradients(optimizer, lambda: (0.25, 0.75)[rank])
    (w * (rank + 1)).sum().backward()
    (w * w * (rank + 3)).sum().backward()
    expected = 0.25 * (1 + 2 * 3) + 0.75 * (2 + 2 * 4)
    torch.testing.assert_close(w.grad, torch.full((3,), expected))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    optimizer.zero_grad()
    scaler.scale((w * (math.inf if rank else 1.0)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(w, torch.ones(3)) and scaler.get_scale() == 1


def main(out, data, stop_after, *opts):
    cfg = toy_cfg(out, data, "TRAINER.NAME", SteadyTrainer.__name__, *opts)
    torch.set_num_threads(1)
    with distributed.process_group(cfg.USE_CUDA):
        check_gradients()
        set_random_seed(cfg.SEED)
        setup_logger(cfg.OUTPUT_DIR)
        trainer = build_trainer(cfg)
        trainer.stop_after = int(stop_after)
        trainer.train()
        for tensor in trainer.model.state_dict().values():
            assert torch.equal(tensor, distributed.broadcast(tensor))


if __name__ == "__main__":
    main(*sys.argv[1:])
