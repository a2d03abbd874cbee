from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from clip.tiny.captions import NAMES
from clip.tiny.render import CHARACTERS, HELD_OUT_FONTS, TRAINING_FONTS
from dassl.engine import build_trainer
from datasets import Characters, Digits, characters

REPOSITORY = Path(__file__).parents[2]


def test_fonts_and_names_are_those_of_the_tiny_clip():
    assert characters.FONTS == HELD_OUT_FONTS and not {*HELD_OUT_FONTS} & {*TRAINING_FONTS}
    assert characters.CLASSNAMES == NAMES and characters.CHARACTERS == CHARACTERS


def test_counts_and_halves(data_root, make_cfg):
    dataset = Characters(make_cfg(data_root))
    assert dataset.classnames == list(NAMES)
    for items, count in ((dataset.train_x, 30), (dataset.val, 12), (dataset.test, 18)):
        assert Counter(item.label for item in items) == dict.fromkeys(range(36), count)
    base, new = (Characters(make_cfg(data_root, 16, half)) for half in ("base", "new"))
    assert base.classnames == list(NAMES[:18]) and new.classnames == list(NAMES[18:])
    assert len(base.train_x) == 16 * 18


def test_classes_of_digits_are_among_them(data_root, make_cfg):
    assert Digits(make_cfg(data_root)).classnames == list(NAMES[:10])


def test_images_are_the_same_every_time_and_differ_from_each_other(data_root, make_cfg):
    dataset = Characters(make_cfg(data_root))
    seen = set()
    for path, image in islice(Characters.at(str(data_root)).images(), 130):
        assert (image.mode, image.size) == ("L", (32, 32))
        with Image.open(Path(dataset.image_dir, path)) as written:
            assert np.array_equal(np.asarray(written), np.asarray(image))
        seen.add(image.tobytes())
    assert len(seen) == 130


def test_the_tiny_clip_reads_most_of_them(data_root, monkeypatch):
    """Far above chance, so that there is something to transfer, and far from perfect."""
    monkeypatch.chdir(REPOSITORY)
    trainer = build_trainer(
        train.setup_cfg(
            train.parse_args(
                [
                    *("--root", str(data_root), "--trainer", "ZeroshotCLIP", "--seed", "1"),
                    *("--dataset-config-file", "configs/datasets/characters.yaml"),
                    *("--config-file", "configs/trainers/ZeroshotCLIP/tiny.yaml"),
                ]
            )
        )
    )
    right = total = 0
    with torch.no_grad():
        for batch in trainer.test_loader:
            scores = trainer.model_inference(batch["img"])
            right += (scores.argmax(1) == batch["label"]).sum().item()
            total += len(scores)
    assert total == 648
    assert right / total == pytest.approx(0.71, abs=0.05)
