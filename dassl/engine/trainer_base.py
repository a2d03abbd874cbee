"""What every trainer is made of: named models, their checkpoints and steps, a loop with hooks."""

from __future__ import annotations

import os.path as osp
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import nn

from dassl.utils import (
    UserError,
    check_choice,
    distributed,
    load_checkpoint,
    load_weights,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)
from dassl.utils.checkpoint import (
    CheckpointError,
    can_resume,
    check_run_folder,
    find_checkpoint,
    summarize,
)
from dassl.utils.restore import unchanged_on_error
from dassl.utils.scalars import ScalarWriter

Names = str | list[str] | None


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss that is infinite or NaN."""


class TrainerBase:
    """A training loop with hooks, on models that are saved, loaded and stepped by name.

    Attributes:
        model: set by :meth:`SimpleTrainer.build_model`; what :meth:`model_inference` calls.
        ignored_keys: endings of tensor names that are neither saved nor loaded, because they
            follow from the class names of a run and not from its training.
        epochs_done: epochs that the current weights were trained for; None before training.
        weights_path: file that :meth:`load_model` took the weights from; None: not known.
        other_epoch: the epoch that :meth:`load_model` was asked for, where it would have chosen
            another checkpoint itself.
        batch_share: the fraction of a batch's images that this process has.
        scaler: gradient scaler of a trainer that has one; a part of checkpoints.
    """

    model: Any
    ignored_keys: tuple[str, ...] = ()
    scaler: torch.amp.GradScaler | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "load_model" in vars(cls):
            cls.load_model = _remembering(cls.load_model)  # type: ignore[method-assign]

    def __init__(self) -> None:
        self._models: dict[str, nn.Module] = OrderedDict()
        self._optims: dict[str, torch.optim.Optimizer | None] = OrderedDict()
        self._scheds: dict[str, Any] = OrderedDict()
        self.epochs_done: int | None = None
        self.weights_path: str | None = None
        self.other_epoch: int | None = None
        self.batch_share = 1 / distributed.world_size()
        self._writer: ScalarWriter | None = None
        self._birth = time.monotonic()
        self._in_training = False
        self._trained = False

    def register_model(
        self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Register a model, its optimizer and its scheduler; ValueError: the name is taken."""
        if name in self._models:
            raise ValueError(f'A model named "{name}" is already registered')
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched
        if optim is not None:
            distributed.average_gradients(optim, lambda: self.batch_share)

    def get_model_names(self, names: Names = None) -> list[str]:
        """Return ``names`` as a list, or all registered names; KeyError: one is not registered."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        if unknown := [name for name in names if name not in self._models]:
            raise KeyError(f"No model is registered as {unknown}, only {list(self._models)}")
        return names

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Put models into "train" or "eval" ("test") mode; ValueError: there is no such mode."""
        check_choice("mode", mode, ("train", "eval", "test"))
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    # ---- checkpoints

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Save all models under ``directory/<name>/``.

        Args:
            epoch: index of the epoch that has just ended; the file carries the number after it.
            directory: usually the output directory.
            is_best, val_result, model_name: as for :func:`dassl.utils.save_checkpoint`.
        """
        for name in self.get_model_names():
            tensors = self._models[name].state_dict().items()
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": {k: t for k, t in tensors if not k.endswith(self.ignored_keys)},
                "epoch": epoch + 1,
                "optimizer": optim.state_dict() if optim is not None else None,
                "scheduler": sched.state_dict() if sched is not None else None,
                "val_result": val_result,
            }
            if self.scaler is not None:
                state["scaler"] = self.scaler.state_dict()
            save_checkpoint(state, osp.join(directory, name), is_best, model_name=model_name)

    def has_checkpoints(self, directory: str) -> bool:
        """Return whether ``directory`` has checkpoints of all models to resume from."""
        names = self.get_model_names()
        return bool(names) and all(can_resume(osp.join(directory, name)) for name in names)

    def resume_model_if_exist(self, directory: str) -> int:
        """Restore all models from ``directory``, if it has checkpoints of all of them, or none.

        Returns:
            The number of epochs done; 0 without checkpoints.

        Raises:
            CheckpointError: the models were saved at different epochs, or do not fit.
        """
        if not self.has_checkpoints(directory):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        others = [*self._optims.values(), *self._scheds.values(), self.scaler]
        with unchanged_on_error(self._models.values(), *others):
            epochs = {
                resume_from_checkpoint(
                    osp.join(directory, name),
                    self._models[name],
                    self._optims[name],
                    self._scheds[name],
                    self.scaler,
                    self.ignored_keys,
                )
                for name in self.get_model_names()
            }
            if len(epochs) > 1:
                raise CheckpointError(
                    f'The models in "{directory}" were saved at different epochs '
                    f'({sorted(epochs)}): write "model.pth.tar-{min(epochs)}" into each file '
                    '"checkpoint" there'
                )
        return epochs.pop()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the weights of all models or none; print which names were missing or unexpected.

        Args:
            directory: the output directory of the run that trained them; empty: do nothing.
            epoch: which checkpoint; None: the best one, or the last if no best one was kept.

        Raises:
            FileNotFoundError: there is no such checkpoint; the message lists those that exist.
            CheckpointError: it cannot be read or does not fit.
            UserError: ``directory`` is a file, or a folder of checkpoints within that of a run.
        """
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        weights: _Weights | None = None
        with unchanged_on_error(self._models.values()):
            for name in self.get_model_names():
                check_run_folder(directory)
                weights = _find_weights(osp.join(directory, name), epoch)
                epochs_done, path = weights.checkpoint.get("epoch"), weights.path
                print(f'Loading weights to {name} from "{path}" (epoch = {epochs_done})')
                missing, unexpected = load_weights(
                    self._models[name],
                    weights.checkpoint.get("state_dict"),
                    path,
                    self.ignored_keys,
                )
                print(f"* missing keys: {summarize(missing)}")
                print(f"* unexpected keys: {summarize(unexpected)}")
        if weights:
            self._remember(weights)

    def _remember(self, weights: _Weights) -> None:
        self.epochs_done = weights.checkpoint.get("epoch")
        self.weights_path = weights.path
        self.other_epoch = weights.other_epoch

    # ---- steps

    def update_lr(self, names: Names = None) -> None:
        """Step the schedulers."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: Names = None) -> float:
        """Return the learning rate of the first model's first parameter group."""
        optim = self._optims[self.get_model_names(names)[0]]
        return optim.param_groups[0]["lr"] if optim is not None else 0.0

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        """Raise a NonFiniteLossError unless a loss is finite."""
        if not torch.isfinite(loss).all():
            raise NonFiniteLossError(
                "Loss is infinite or NaN! Lower OPTIM.LR, or use a wider floating-point type"
            )

    def model_zero_grad(self, names: Names = None) -> None:
        """Clear the gradients."""
        for optim in self._optimizers(names):
            optim.zero_grad()

    def model_backward(self, loss: torch.Tensor) -> None:
        """Check the loss and compute the gradients."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Step the optimizers."""
        for optim in self._optimizers(names):
            optim.step()

    def model_backward_and_update(self, loss: torch.Tensor, names: Names = None) -> None:
        """Clear the gradients, compute them, and step the optimizers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def _optimizers(self, names: Names) -> list[torch.optim.Optimizer]:
        optims = (self._optims[name] for name in self.get_model_names(names))
        return [optim for optim in optims if optim is not None]

    # ---- loop

    def init_writer(self, log_dir: str) -> None:
        """Open a TensorBoard writer, in the main process."""
        if self._writer is None and distributed.is_main():
            print(f"Initialize tensorboard (log_dir={log_dir})")
            self._writer = ScalarWriter(log_dir)

    def close_writer(self) -> None:
        """Close the TensorBoard writer, if there is one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Write a number for TensorBoard; without a writer, do nothing."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Train from ``start_epoch`` (or where a checkpoint left off) to ``max_epoch``."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.other_epoch = None
        self.before_train()
        self._in_training = True
        self._trained = self.start_epoch < self.max_epoch
        self.epochs_done = self.start_epoch
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self.before_epoch()
            self.run_epoch()
            self.epochs_done = self.epoch + 1
            self.after_epoch()
        self._in_training = False
        self.after_train()

    def before_train(self) -> None:
        """Hook: what happens before the first epoch."""

    def after_train(self) -> None:
        """Hook: what happens after the last epoch."""

    def before_epoch(self) -> None:
        """Hook: what happens before each epoch."""

    def after_epoch(self) -> None:
        """Hook: what happens after each epoch."""

    def run_epoch(self) -> None:
        """Train for one epoch."""
        raise NotImplementedError

    def forward_backward(self, batch: Any) -> dict[str, float] | None:
        """Take one optimization step on a batch and return what to log."""
        raise NotImplementedError

    def run_summary(self) -> dict[str, Any]:
        """Return further entries for results.json; subclasses add to those of ``super()``."""
        return {}


class _Weights(NamedTuple):
    """A checkpoint, and the epoch that was asked for, where another one would have been chosen."""

    path: str
    checkpoint: dict[str, Any]
    other_epoch: int | None


def _find_weights(folder: str, epoch: int | None) -> _Weights:
    path = find_checkpoint(folder, epoch)
    return _Weights(path, load_checkpoint(path), epoch if path != find_checkpoint(folder) else None)


def _remembering(load_model: Callable[..., None]) -> Callable[..., None]:
    """A trainer's own ``load_model``, after which it is known what was loaded."""

    @wraps(load_model)
    def remembering(self: TrainerBase, directory: str, epoch: int | None = None) -> None:
        self.weights_path = None
        load_model(self, directory, epoch)
        if directory and self.weights_path is None:
            self.epochs_done = self.other_epoch = None
            with suppress(FileNotFoundError, CheckpointError):  # it may have files of its own
                for name in self.get_model_names():
                    self._remember(_find_weights(osp.join(directory, name), epoch))

    return remembering
