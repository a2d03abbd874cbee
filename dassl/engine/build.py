"""Registered trainers, by name."""

from __future__ import annotations

from typing import Any

from dassl.config import CfgNode
from dassl.utils import Registry

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> Any:
    """Build the trainer that cfg.TRAINER.NAME names.

    Raises:
        UnknownNameError: no such trainer is registered; the message names the nearest ones.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    return trainer(cfg)
