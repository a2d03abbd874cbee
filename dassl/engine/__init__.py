# ruff: noqa: F401
"""Trainers."""

from dassl.engine.base import TrainerBase
from dassl.engine.build import TRAINER_REGISTRY, build_trainer
from dassl.engine.results import RunMismatchError
from dassl.engine.trainer import SimpleTrainer
from dassl.engine.trainer_x import TrainerX
