"""Trainers: models, a training loop with hooks, and evaluation, from a configuration."""

from __future__ import annotations

import datetime
import os.path as osp
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from dassl.config import CfgNode
from dassl.data import DataManager
from dassl.engine import results
from dassl.evaluation import build_evaluator
from dassl.modeling import SimpleNet  # noqa: F401 (as hosts import it)
from dassl.utils import (
    AverageMeter,
    Cache,
    MetricMeter,
    ProgressBar,
    UserError,
    check_choice,
    choose_device,
    copy_file,
    defer_signals,
    distributed,
    load_checkpoint,
    load_weights,
    package_versions,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
    write_json,
)
from dassl.utils.checkpoint import BEST, CheckpointError, can_resume, find_checkpoint, summarize
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
        weights_path: file that :meth:`load_model` took the weights from.
        other_epoch: the epoch that :meth:`load_model` was asked for, where it would have chosen
            another checkpoint itself.
        batch_share: the fraction of a batch's images that this process has.
        scaler: gradient scaler of a trainer that has one; a part of checkpoints.
    """

    model: Any
    ignored_keys: tuple[str, ...] = ()
    scaler: torch.amp.GradScaler | None = None

    def __init__(self) -> None:
        self._models: dict[str, nn.Module] = OrderedDict()
        self._optims: dict[str, torch.optim.Optimizer | None] = OrderedDict()
        self._scheds: dict[str, Any] = OrderedDict()
        self.epochs_done: int | None = None
        self.weights_path: str | None = None
        self.other_epoch: int | None = None
        self.batch_share = 1 / distributed.world_size()
        self._writer: ScalarWriter | None = None
        self._birth = time.time()
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
        """Restore all models from ``directory``, if it has checkpoints of all of them.

        Returns:
            The number of epochs done; 0 without checkpoints.

        Raises:
            CheckpointError: the models were saved at different epochs, or do not fit.
        """
        if not self.has_checkpoints(directory):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
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
                f'The models in "{directory}" were saved at different epochs ({sorted(epochs)}): '
                f'write "model.pth.tar-{min(epochs)}" into each file "checkpoint" there'
            )
        return epochs.pop()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the weights of all models, and print which names were missing or unexpected.

        Args:
            directory: the output directory of the run that trained them; empty: do nothing.
            epoch: which checkpoint; None: the best one, or the last if no best one was kept.

        Raises:
            FileNotFoundError: there is no such checkpoint; the message lists those that exist.
            CheckpointError: it cannot be read or does not fit.
        """
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        for name in self.get_model_names():
            path = find_checkpoint(osp.join(directory, name), epoch)
            self.other_epoch = epoch if path != find_checkpoint(osp.join(directory, name)) else None
            checkpoint = load_checkpoint(path)
            self.epochs_done = checkpoint.get("epoch")
            self.weights_path = path
            print(f'Loading weights to {name} from "{path}" (epoch = {self.epochs_done})')
            missing, unexpected = load_weights(
                self._models[name], checkpoint.get("state_dict"), path, self.ignored_keys
            )
            print(f"* missing keys: {summarize(missing)}")
            print(f"* unexpected keys: {summarize(unexpected)}")

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


class SimpleTrainer(TrainerBase):
    """A trainer with data, device, evaluation and checkpoints from a configuration.

    Args:
        cfg: the configuration.
        cache: what it shares with other runs; None: nothing.
    """

    def __init__(self, cfg: CfgNode, cache: Cache | None = None) -> None:
        super().__init__()
        self.check_cfg(cfg)
        check_choice("TEST.SPLIT", cfg.TEST.SPLIT, ("test", "val"))
        check_choice("TEST.FINAL_MODEL", cfg.TEST.FINAL_MODEL, ("last_step", "best_val"))
        if cfg.SEED < 0 and distributed.world_size() > 1:
            raise UserError(f"SEED is {cfg.SEED}: several processes need one seed, at least 0")
        self.device = choose_device(cfg)
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.cache = cache
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    def check_cfg(self, cfg: CfgNode) -> None:
        """Hook: check the settings that the trainer depends on."""

    def build_data_loader(self) -> None:
        """Build the data manager and take over its loaders."""
        self.dm = DataManager(self.cfg, cache=self.cache)
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def build_model(self) -> None:
        """Build the model, its optimizer and scheduler, and register them."""
        raise NotImplementedError

    @defer_signals()
    def train(self) -> None:  # type: ignore[override]
        """Train as configured."""
        try:
            super().train(self.start_epoch, self.max_epoch)
        finally:
            self.close_writer()

    def before_train(self) -> None:
        """Resume if there is a checkpoint, and open the TensorBoard writer.

        Raises:
            RunMismatchError: OUTPUT_DIR holds a run of another configuration; more epochs than
                those of its checkpoints are none.
            FileNotFoundError: RESUME is set, but holds no checkpoint.
            UserError: the data set has no training images, or no validation images to choose by.
        """
        self.time_start = time.time()
        if getattr(self.dm.dataset, "evaluation_only", False):
            raise UserError(
                f"{self.cfg.DATASET.NAME} has no training images: evaluate on it with --eval-only"
            )
        record = osp.join(self.output_dir, "config.json")
        directory = self.cfg.RESUME or self.output_dir
        resumes = self.has_checkpoints(directory)
        if self.cfg.RESUME and not resumes:
            raise FileNotFoundError(f'RESUME="{directory}" holds no checkpoint to resume from')
        goes_on = resumes and not self.cfg.RESUME
        records = [self._results_path(self.cfg.TEST.SPLIT), *([record] if goes_on else [])]
        if any([results.check_same_run(path, self.cfg, longer=goes_on) for path in records]):
            print(
                f"OPTIM.MAX_EPOCH was raised to {self.max_epoch}: training goes on from the last "
                "checkpoint with the schedule of that many epochs, and its results replace those "
                "of fewer"
            )
        if self.cfg.SEED < 0 < self.cfg.DATASET.NUM_SHOTS:
            print("SEED is negative: each start, also after an interruption, draws other shots")
        if distributed.is_main():
            write_json({"config": results.config_dict(self.cfg)}, record)
        if self.cfg.TEST.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise UserError("FINAL_MODEL best_val needs validation images, and there are none")
        self.init_writer(osp.join(self.output_dir, "tensorboard"))
        # last, because it restores the random generators
        self.start_epoch = self.resume_model_if_exist(directory)
        distributed.barrier()  # all have read what was there before anyone saves

    def resume_model_if_exist(self, directory: str) -> int:
        """Restore all models, and the best validation result so far."""
        epoch = super().resume_model_if_exist(directory)
        best = [osp.join(directory, name, BEST) for name in self.get_model_names()]
        if epoch and all(map(osp.isfile, best)):
            if directory != self.output_dir and distributed.is_main():
                for source in best:
                    copy_file(source, osp.join(self.output_dir, osp.relpath(source, directory)))
            result = load_checkpoint(best[0]).get("val_result")
            self.best_result = self.best_result if result is None else result
        return epoch

    def after_train(self) -> None:
        """Test the last or the best model, and print the time that training took."""
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-step model")
            self.test()
        print(f"Elapsed: {datetime.timedelta(seconds=round(time.time() - self.time_start))}")
        self.close_writer()

    def after_epoch(self) -> None:
        """Keep the best model if FINAL_MODEL asks for it, and save checkpoints."""
        epoch = self.epoch + 1
        if self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST:
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self._save(val_result=result, model_name=BEST)
        freq = self.cfg.TRAIN.CHECKPOINT_FREQ
        if epoch == self.max_epoch or (freq > 0 and epoch % freq == 0):
            self._save()

    def _save(self, **options: Any) -> None:
        if distributed.is_main():
            self.save_model(self.epoch, self.output_dir, **options)
        distributed.barrier()  # the others may load it next

    @defer_signals()
    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split, log the scores, and write them to OUTPUT_DIR/results.json.

        Scores during training are not written; those of another split than the configured one
        go to results-<split>.json, those of another epoch than :meth:`load_model` chooses itself
        to results-epoch<N>.json.

        Args:
            split: "test" or "val"; None: cfg.TEST.SPLIT.

        Returns:
            The first of the evaluator's scores.

        Raises:
            UserError: the split is unknown or empty.
            RunMismatchError: OUTPUT_DIR holds the results of another run.
        """
        split = split or self.cfg.TEST.SPLIT
        check_choice("split", split, ("test", "val"))
        loader = self.val_loader if split == "val" else self.test_loader
        if loader is None:
            raise UserError(f"The data set {self.cfg.DATASET.NAME} has no {split} images")
        path = self._results_path(split)
        if not self._in_training:
            # unknown after a subclass's load_model that does not set it
            known = self.epochs_done is not None and not self._trained
            fields = {"epoch": self.epochs_done} if known else {}
            results.check_same_run(path, self.cfg, longer=self._trained, **fields)

        self.set_model_mode("eval")
        self.evaluator.reset()
        print(f"Evaluate on the *{split}* set")
        for scores, labels in distributed.gather(self.scores(loader)):
            self.evaluator.process(scores, labels)
        metrics: dict[str, float] = self.evaluator.evaluate() if distributed.is_main() else {}
        metrics = distributed.broadcast(metrics)
        for name, value in metrics.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if not self._in_training and distributed.is_main():
            results.save(self._record(split, metrics), path, replace=self._trained)
        return next(iter(metrics.values()))

    def _results_path(self, split: str) -> str:
        suffix = "" if split == self.cfg.TEST.SPLIT else f"-{split}"
        suffix += "" if self.other_epoch is None else f"-epoch{self.other_epoch}"
        return osp.join(self.output_dir, f"results{suffix}.json")

    def _record(self, split: str, metrics: dict[str, float]) -> dict[str, Any]:
        cfg = self.cfg
        return {
            "format_version": results.FORMAT_VERSION,
            "trainer": cfg.TRAINER.NAME,
            "dataset": cfg.DATASET.NAME,
            "dataset_notes": list(getattr(self.dm.dataset, "notes", ())),
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "seed": cfg.SEED,
            "num_shots": cfg.DATASET.NUM_SHOTS,
            "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
            "split": split,
            "epoch": self.epochs_done,
            "weights": self.weights_path,
            "trained_with": results.trained_with(self.weights_path),
            "metrics": dict(metrics),
            **self.evaluator.details(),
            "config": results.config_dict(cfg),
            "irrelevant_settings": sorted(results.IRRELEVANT_SETTINGS),
            "versions": package_versions(),
            "wall_time_s": round(time.time() - self._birth, 3),
            "peak_memory_bytes": results.peak_memory_bytes(self.device),
            **self.run_summary(),
        }

    def scores(self, loader: Iterable[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield scores (batch, classes) and labels (batch,) for each batch of ``loader``.

        Of several processes, each has a loader over its own part of the images.
        """
        for batch in ProgressBar(loader, desc="evaluate"):
            images, labels = self.parse_batch_test(batch)
            yield self.model_inference(images), labels

    def model_inference(self, input: Any) -> torch.Tensor:
        """Return the scores of ``self.model``."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (batch, 3, H, W) and labels (batch,), on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


class TrainerX(SimpleTrainer):
    """A trainer on labelled data."""

    def run_epoch(self) -> None:
        """Train on each batch once, and log every cfg.TRAIN.PRINT_FREQ batches."""
        self.run_batches(zip(self.train_loader_x, strict=False), len(self.train_loader_x))

    def run_batches(self, batches: Iterable[tuple[Any, ...]], number: int) -> None:
        """Call :meth:`forward_backward` with what is in each of ``number`` tuples of batches."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = number
        # at least one line for each epoch
        print_freq = max(1, min(self.cfg.TRAIN.PRINT_FREQ, self.num_batches))
        bar = ProgressBar(batches, f"epoch [{self.epoch + 1}/{self.max_epoch}]", number)
        end = time.time()
        for self.batch_idx, parts in enumerate(bar):
            data_time.update(time.time() - end)
            self.batch_share = distributed.fraction(len(parts[0]["label"]))
            losses.update(distributed.mean(self.forward_backward(*parts), self.batch_share))
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

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Return images (batch, 3, H, W), labels and domains (batch,), on the device."""
        image, label, domain = (batch[key].to(self.device) for key in ("img", "label", "domain"))
        return image, label, domain


class TrainerXU(TrainerX):
    """A trainer on labelled and unlabelled data, a batch of each at a time."""

    def run_epoch(self) -> None:
        """Train on as many pairs of batches as cfg.TRAIN.COUNT_ITER says.

        The shorter loader starts again.

        Raises:
            UserError: there is no unlabelled data.
        """
        if self.train_loader_u is None:
            raise UserError(
                f"{self.cfg.TRAINER.NAME} trains on unlabelled images, too, and the data set "
                f"{self.cfg.DATASET.NAME} has none (train_u)"
            )
        loaders = self.train_loader_x, self.train_loader_u
        sizes = {"train_x": len(loaders[0]), "train_u": len(loaders[1])}
        sizes["smaller_one"] = min(sizes.values())
        check_choice("TRAIN.COUNT_ITER", self.cfg.TRAIN.COUNT_ITER, sizes)
        number = sizes[self.cfg.TRAIN.COUNT_ITER]
        pairs = zip(range(number), *map(_again_and_again, loaders), strict=False)
        self.run_batches((pair[1:] for pair in pairs), number)

    def parse_batch_train(  # type: ignore[override]
        self, batch_x: dict[str, Any], batch_u: dict[str, Any]
    ) -> tuple[torch.Tensor, ...]:
        """Return labelled images, their labels, and unlabelled images, on the device."""
        parts = batch_x["img"], batch_x["label"], batch_u["img"]
        image, label, unlabelled = (part.to(self.device) for part in parts)
        return image, label, unlabelled


def _again_and_again(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def __getattr__(name: str) -> Any:  # DePT and others import it from here; it takes seconds to load
    if name == "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
