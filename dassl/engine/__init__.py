# ruff: noqa: F401
"""Trainers."""

from dassl.engine.build import TRAINER_REGISTRY, build_trainer
from dassl.engine.results import RunMismatchError
from dassl.engine.trainer import SimpleNet, SimpleTrainer, TrainerBase, TrainerX, TrainerXU
