"""Training on labelled batches."""

from __future__ import annotations

import datetime
import time
from typing import Any

import torch

from dassl.engine.trainer import SimpleTrainer
from dassl.utils import AverageMeter, MetricMeter, ProgressBar, distributed


class TrainerX(SimpleTrainer):
    """A trainer on labelled data."""

    def run_epoch(self) -> None:
        """Train on each batch once, and log every cfg.TRAIN.PRINT_FREQ batches."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        # at least one line for each epoch
        print_freq = max(1, min(self.cfg.TRAIN.PRINT_FREQ, self.num_batches))
        bar = ProgressBar(self.train_loader_x, desc=f"epoch [{self.epoch + 1}/{self.max_epoch}]")
        end = time.time()
        for self.batch_idx, batch in enumerate(bar):
            data_time.update(time.time() - end)
            self.batch_share = distributed.fraction(len(batch["label"]))
            losses.update(distributed.mean(self.forward_backward(batch), self.batch_share))
            batch_time.update(time.time() - end)
            done = self.batch_idx + 1
            if done % print_freq == 0:
                left = (self.max_epoch - self.epoch) * self.num_batches - done
                eta = datetime.timedelta(seconds=int(batch_time.avg * left))
                bar.set_postfix_str(f"{losses} eta {eta}", refresh=False)
                bar.log(
                    f"epoch [{self.epoch + 1}/{self.max_epoch}] "
                    f"batch [{done}/{self.num_batches}] "
                    f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
                    f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
                    f"{losses} lr {self.get_current_lr():.4e} eta {eta}"
                )
            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.time()

    def parse_batch_train(
        self, batch: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images (batch, 3, H, W), labels and domains (batch,), on the device."""
        return (
            batch["img"].to(self.device),
            batch["label"].to(self.device),
            batch["domain"].to(self.device),
        )
