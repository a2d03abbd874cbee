"""Trainers from a configuration."""

from __future__ import annotations

import datetime
import os.path as osp
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from dassl.config import CfgNode
from dassl.data import DataManager
from dassl.engine import results
from dassl.engine.base import TrainerBase
from dassl.evaluation import build_evaluator
from dassl.utils import (
    ProgressBar,
    atomic_write,
    choose_device,
    distributed,
    load_checkpoint,
    mkdir_if_missing,
    package_versions,
    write_json,
)
from dassl.utils.checkpoint import BEST


class SimpleTrainer(TrainerBase):
    """A trainer with data, device, evaluation and checkpoints from a configuration.

    Args:
        cfg: the configuration.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.check_cfg(cfg)
        _check_choice("TEST.SPLIT", cfg.TEST.SPLIT, ("test", "val"))
        _check_choice("TEST.FINAL_MODEL", cfg.TEST.FINAL_MODEL, ("last_step", "best_val"))
        if cfg.SEED < 0 and distributed.world_size() > 1:
            raise ValueError(f"SEED is {cfg.SEED}: several processes need one seed, at least 0")
        self.device = choose_device(cfg)
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    def check_cfg(self, cfg: CfgNode) -> None:
        """Hook: check the settings that the trainer depends on."""

    def build_data_loader(self) -> None:
        """Build the data manager and take over its loaders."""
        self.dm = DataManager(self.cfg)
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

    def train(self) -> None:  # type: ignore[override]
        """Train as configured."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume if there is a checkpoint, and open the TensorBoard writer.

        Raises:
            RunMismatchError: OUTPUT_DIR holds a run of another configuration.
            FileNotFoundError: RESUME is set, but holds no checkpoint.
            ValueError: the data set has no training images, or no validation images to choose by.
        """
        self.time_start = time.time()
        if getattr(self.dm.dataset, "evaluation_only", False):
            raise ValueError(
                f"{self.cfg.DATASET.NAME} has no training images: evaluate on it with --eval-only"
            )
        record = osp.join(self.output_dir, "config.json")
        results.check_same_run(self._results_path(self.cfg.TEST.SPLIT), self.cfg)
        directory = self.cfg.RESUME or self.output_dir
        if self.cfg.SEED < 0 < self.cfg.DATASET.NUM_SHOTS:
            print("SEED is negative: each start, also after an interruption, draws other shots")
        found = self.has_checkpoints(directory)
        if self.cfg.RESUME and not found:
            raise FileNotFoundError(f'RESUME="{directory}" holds no checkpoint to resume from')
        if found and not self.cfg.RESUME:
            results.check_same_run(record, self.cfg)
        if distributed.is_main():
            write_json({"config": results.config_dict(self.cfg)}, record)
        if self.cfg.TEST.FINAL_MODEL == "best_val" and self.val_loader is None:
            raise ValueError("FINAL_MODEL best_val needs validation images, and there are none")
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
                    target = osp.join(self.output_dir, osp.relpath(source, directory))
                    mkdir_if_missing(osp.dirname(target))
                    with open(source, "rb") as old, atomic_write(target) as new:
                        shutil.copyfileobj(old, new)
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
        elapsed = datetime.timedelta(seconds=round(time.time() - self.time_start))
        print(f"Elapsed: {elapsed}")
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

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split, log the scores, and write them to OUTPUT_DIR/results.json.

        Scores on the way (while training runs) are not written; scores of another split than the
        configured one go to results-<split>.json.

        Args:
            split: "test" or "val"; None: cfg.TEST.SPLIT.

        Returns:
            The first of the evaluator's scores.

        Raises:
            ValueError: the split is unknown or empty.
            RunMismatchError: OUTPUT_DIR holds the results of another run.
        """
        split = split or self.cfg.TEST.SPLIT
        _check_choice("split", split, ("test", "val"))
        loader = self.val_loader if split == "val" else self.test_loader
        if loader is None:
            raise ValueError(f"The data set {self.cfg.DATASET.NAME} has no {split} images")
        path = self._results_path(split)
        if not self._in_training:
            # a trainer with a load_model of its own may not tell the epoch
            told = self.epochs_done is not None and not self._trained
            epoch = {"epoch": self.epochs_done} if told else {}
            results.check_same_run(path, self.cfg, **epoch)

        self.set_model_mode("eval")
        self.evaluator.reset()
        print(f"Evaluate on the *{split}* set")
        for scores, labels in distributed.gather(self.scores(loader)):
            self.evaluator.process(scores, labels)
        metrics = distributed.broadcast(
            self.evaluator.evaluate() if distributed.is_main() else None
        )
        for name, value in metrics.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if not self._in_training and distributed.is_main():
            results.save(self._record(split, metrics), path, replace=self._trained)
        return next(iter(metrics.values()))

    def _results_path(self, split: str) -> str:
        suffix = "" if split == self.cfg.TEST.SPLIT else f"-{split}"
        return osp.join(self.output_dir, f"results{suffix}.json")

    def _record(self, split: str, metrics: dict[str, float]) -> dict[str, Any]:
        cfg = self.cfg
        return {
            "format_version": results.FORMAT_VERSION,
            "trainer": cfg.TRAINER.NAME,
            "dataset": cfg.DATASET.NAME,
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

    def scores(self, loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
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


def _check_choice(key: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(f'{key} is "{value}": choose {" or ".join(known)}')
