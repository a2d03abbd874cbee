"""The learning rate as a pure function of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from dassl.config import CfgNode
from dassl.utils import check_choice


class EpochLR(LRScheduler):
    """Sets the learning rate of each group to ``lr_at(base_lr, epoch)``.

    Its state is the epoch alone, so that a checkpoint needs no pickled scheduler.

    Args:
        optimizer: the optimizer.
        lr_at: function of a group's base learning rate and the epochs done.
    """

    base_lrs: list[Any]  # floats, or tensors if the optimizer's are

    def __init__(
        self, optimizer: torch.optim.Optimizer, lr_at: Callable[[float, int], float]
    ) -> None:
        self.lr_at = lr_at
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """Return the learning rate of each group for the current epoch."""
        return [self.lr_at(base_lr, self.last_epoch) for base_lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the epoch of a state, and set the learning rates that belong to it."""
        self.last_epoch = state_dict["last_epoch"]
        self._last_lr = self.get_lr()
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr


def build_lr_scheduler(optimizer: torch.optim.Optimizer, optim_cfg: CfgNode) -> EpochLR:
    """Build the scheduler that optim_cfg.LR_SCHEDULER names, with its warm-up.

    With W = WARMUP_EPOCH (0 when negative), epoch e < W has WARMUP_CONS_LR (constant), or
    WARMUP_MIN_LR for e = 0 and base_lr * e / W after it (linear). Epoch e >= W has the named
    schedule's value at e - W, or at e without WARMUP_RECOUNT.

    Args:
        optimizer: the optimizer; its current learning rates are the base.
        optim_cfg: the OPTIM node.

    Raises:
        UnknownNameError: there is no such schedule or type of warm-up.
    """
    factor = _factor(optim_cfg)
    warmup = max(optim_cfg.WARMUP_EPOCH, 0)
    if warmup:
        check_choice("OPTIM.WARMUP_TYPE", optim_cfg.WARMUP_TYPE, ("constant", "linear"))
    constant = optim_cfg.WARMUP_TYPE == "constant"
    shift = warmup if optim_cfg.WARMUP_RECOUNT else 0

    def lr_at(base_lr: float, epoch: int) -> float:
        if epoch >= warmup:
            return base_lr * factor(epoch - shift)
        if constant:
            return optim_cfg.WARMUP_CONS_LR
        return base_lr * epoch / warmup if epoch else optim_cfg.WARMUP_MIN_LR

    return EpochLR(optimizer, lr_at)


def _factor(cfg: CfgNode) -> Callable[[int], float]:
    check_choice("OPTIM.LR_SCHEDULER", cfg.LR_SCHEDULER, ("cosine", "single_step", "multi_step"))
    max_epoch, gamma = max(cfg.MAX_EPOCH, 1), cfg.GAMMA
    steps = tuple(cfg.STEPSIZE)
    if cfg.LR_SCHEDULER == "cosine":
        return lambda epoch: (1 + math.cos(math.pi * epoch / max_epoch)) / 2
    if cfg.LR_SCHEDULER == "single_step":
        step = steps[-1] if steps[-1] > 0 else max_epoch
        return lambda epoch: gamma ** (epoch // step)
    return lambda epoch: gamma ** sum(0 < step <= epoch for step in steps)
