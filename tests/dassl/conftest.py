"""A linear classifier on generated images: the smallest trainer that exercises the engine."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed

NAMES = ("red", "green", "blue")


class Toy(DatasetBase):
    """Noisy images in which one colour channel is brighter."""

    def __init__(self, cfg):
        folder = Path(cfg.DATASET.ROOT)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"train": 7, "val": 4, "test": 6}
        splits = {name: self._items(folder, name, size) for name, size in sizes.items()}
        super().__init__(train_x=splits["train"], val=splits["val"], test=splits["test"])

    @staticmethod
    def _items(folder, split, size):
        items = []
        for label, name in enumerate(NAMES):
            for i in range(size):
                path = folder / f"{split}_{name}_{i}.png"
                if not path.exists():
                    rng = np.random.default_rng([label, i, len(split)])
                    pixels = rng.integers(0, 160, (12, 12, 3), dtype=np.uint8)
                    pixels[..., label] += 30
                    Image.fromarray(pixels).save(path)
                items.append(Datum(str(path), label, 0, name))
        return items


class ToyTrainer(TrainerX):
    """Softmax regression with dropout; its training draws from all three random generators."""

    ignored_keys = ("class_buffer",)
    dropout = 0.2

    def build_model(self):
        self.model = nn.Sequential(
            nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(3 * 8 * 8, self.num_classes)
        )
        self.model.register_buffer("class_buffer", torch.zeros(self.num_classes))
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("learner", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        images, labels, _ = self.parse_batch_train(batch)
        loss = F.cross_entropy(self.model(self.disturb(images)), labels)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}

    def disturb(self, images):
        return images * (1 + 0.01 * random.random() + 0.01 * np.random.rand())

    def run_summary(self):
        return {**super().run_summary(), "stored_bytes": 17}


class Interrupted(Exception):
    pass


class SteadyTrainer(ToyTrainer):
    """The toy trainer without random numbers of its own; it can die after an epoch (from 1)."""

    dropout = 0.0
    stop_after = 0

    def disturb(self, images):
        return images

    def after_epoch(self):
        super().after_epoch()
        if self.epoch + 1 == self.stop_after:
            raise Interrupted


DATASET_REGISTRY.register(Toy, force=True)
TRAINER_REGISTRY.register(ToyTrainer, force=True)
TRAINER_REGISTRY.register(SteadyTrainer, force=True)


@pytest.fixture(autouse=True)
def _stdout():
    stdout = sys.stdout
    yield
    sys.stdout = stdout


def toy_cfg(out, data, *opts):
    """Return the frozen configuration of a toy run with KEY VALUE pairs."""
    cfg = get_cfg_default()
    base = {
        "OUTPUT_DIR": str(out),
        "SEED": 1,
        "USE_CUDA": False,
        "INPUT.SIZE": (8, 8),
        "INPUT.TRANSFORMS": ("random_resized_crop", "random_flip", "normalize"),
        "DATASET.NAME": "Toy",
        "DATASET.ROOT": str(data),
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
        "DATALOADER.TEST.BATCH_SIZE": 5,
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.02,
        "OPTIM.MAX_EPOCH": 4,
        "OPTIM.LR_SCHEDULER": "cosine",
        "OPTIM.WARMUP_EPOCH": 1,
        "OPTIM.WARMUP_TYPE": "constant",
        "TRAIN.PRINT_FREQ": 2,
        "TRAINER.NAME": "ToyTrainer",
    }
    for key, value in base.items():
        cfg.merge_from_list([key, value])
    cfg.merge_from_list(list(opts))
    cfg.freeze()
    return cfg


@pytest.fixture
def make_cfg(tmp_path):
    """Return a function from KEY VALUE pairs to a frozen configuration of the toy run."""
    return lambda *opts, out="out": toy_cfg(tmp_path / out, tmp_path / "data", *opts)


@pytest.fixture
def make_trainer(make_cfg):
    """Return a function that builds the toy trainer as train.py does."""

    def make(*opts, out="out"):
        cfg = make_cfg(*opts, out=out)
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)

    return make
