"""Trainers with data, evaluation and checkpoints from a configuration."""

from __future__ import annotations

import datetime
import os.path as osp
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.data import DataManager
from dassl.engine import results
from dassl.engine.trainer_base import TrainerBase
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
    numerics,
    package_versions,
    write_json,
)
from dassl.utils.checkpoint import BEST


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
            RunMismatchError: OUTPUT_DIR holds a run of another configuration, or on other images;
                more epochs than those of its checkpoints are none.
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
        elif goes_on:
            results.check_same_images(record, self.dm.dataset, self.cfg)
        if distributed.is_main():
            images = results.digest_images(self.dm.dataset, self.cfg.DATASET.ROOT)
            write_json({"config": results.config_dict(self.cfg), "images": images}, record)
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
            "numerics": numerics(self.device),
            "wall_time_s": round(time.monotonic() - self._birth, 3),
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

    def to_device(self, part: torch.Tensor) -> torch.Tensor:
        """Copy a part of a batch to the device; nobody waits for it where memory is pinned."""
        return part.to(self.device, non_blocking=True)

    def model_inference(self, input: Any) -> torch.Tensor:
        """Return the scores of ``self.model``."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (batch, 3, H, W) and labels (batch,), on the device."""
        image, label = (self.to_device(batch[key]) for key in ("img", "label"))
        return image, label


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
        end = time.monotonic()  # a clock that is set while it trains counts for nothing
        for self.batch_idx, parts in enumerate(bar):
            data_time.update(time.monotonic() - end)
            self.batch_share = distributed.fraction(len(parts[0]["label"]))
            losses.update(distributed.mean(self.forward_backward(*parts), self.batch_share))
            batch_time.update(time.monotonic() - end)
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
            end = time.monotonic()

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Return images (batch, 3, H, W), labels and domains (batch,), on the device."""
        image, label, domain = (self.to_device(batch[key]) for key in ("img", "label", "domain"))
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
        image, label, unlabelled = map(self.to_device, parts)
        return image, label, unlabelled


def _again_and_again(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def __getattr__(name: str) -> Any:  # DePT and others import it from here; it takes seconds to load
    if name == "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
