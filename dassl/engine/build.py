"""Registered trainers, by name."""

from __future__ import annotations

from typing import Any

from dassl.config import CfgNode
from dassl.utils import Cache, Registry, construct

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode, cache: Cache | None = None) -> Any:
    """Build the trainer that cfg.TRAINER.NAME names.

    Args:
        cfg: the configuration.
        cache: what it shares with other runs; None: nothing.

    Raises:
        UnknownNameError: no such trainer is registered; the message names the nearest ones.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    return construct(trainer, cfg, cache)
