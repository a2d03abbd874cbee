"""The training loop and the hooks around it."""

from __future__ import annotations

import time
from typing import Any

from dassl.engine.models import Models
from dassl.utils import distributed


class TrainerBase(Models):
    """Registered models, and a training loop with hooks around it."""

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = None
        self._birth = time.time()
        self._in_training = False
        self._trained = False

    def init_writer(self, log_dir: str) -> None:
        """Open a TensorBoard writer, in the main process."""
        if self._writer is None and distributed.is_main():
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            print(f"Initialize tensorboard (log_dir={log_dir})")
            self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self) -> None:
        """Close the TensorBoard writer, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Write a number for TensorBoard; without a writer, do nothing."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Train from ``start_epoch`` (or where a checkpoint left off) to ``max_epoch``."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
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
