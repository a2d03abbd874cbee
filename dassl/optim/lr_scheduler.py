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


class _WarmupScheduler(EpochLR):
    """``lr_at`` for the first ``warmup_epoch`` epochs, then ``successor`` from its start.

    For code that puts its schedule together itself; :func:`build_lr_scheduler` needs none.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        lr_at: Callable[[float, int], float],
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, lr_at)

    def get_lr(self) -> list[Any]:
        warm = self.last_epoch < self.warmup_epoch
        return super().get_lr() if warm else self.successor.get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch, of the warm-up or of the successor."""
        if self.last_epoch < self.warmup_epoch:
            super().step()
        else:
            self.successor.step()
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the state of the successor."""
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the epoch of a state, and set the learning rates that belong to it."""
        self.successor.load_state_dict(state_dict["successor"])
        super().load_state_dict(state_dict)


class ConstantWarmupScheduler(_WarmupScheduler):
    """The learning rate ``cons_lr`` for ``warmup_epoch`` epochs, then that of ``successor``."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
    ) -> None:
        super().__init__(optimizer, successor, warmup_epoch, _constant(cons_lr))


class LinearWarmupScheduler(_WarmupScheduler):
    """From ``min_lr`` in ``warmup_epoch`` equal steps to the learning rate of ``successor``."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        min_lr: float,
    ) -> None:
        super().__init__(optimizer, successor, warmup_epoch, _linear(warmup_epoch, min_lr))


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
    cons_lr, min_lr = optim_cfg.WARMUP_CONS_LR, optim_cfg.WARMUP_MIN_LR
    warm = _constant(cons_lr) if constant else _linear(warmup, min_lr)
    shift = warmup if optim_cfg.WARMUP_RECOUNT else 0

    def lr_at(base_lr: float, epoch: int) -> float:
        return warm(base_lr, epoch) if epoch < warmup else base_lr * factor(epoch - shift)

    return EpochLR(optimizer, lr_at)


def _constant(cons_lr: float) -> Callable[[float, int], float]:
    return lambda base_lr, epoch: cons_lr


def _linear(warmup: int, min_lr: float) -> Callable[[float, int], float]:
    return lambda base_lr, epoch: base_lr * epoch / warmup if epoch else min_lr


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
