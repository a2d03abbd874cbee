from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import train
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import build_trainer
from datasets import Digits

REPOSITORY = Path(__file__).parents[2]
CONFIGS = sorted((REPOSITORY / "configs" / "datasets").glob("*.yaml"))
GENERATED = ("characters", "digits")
RENAMED = {"dtd": "DescribableTextures"}  # as upstream has it


def name_of(path):
    return RENAMED.get(path.stem, path.stem.replace("_", "")).lower()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_name_a_data_set_and_open_with_their_command(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    lines = path.read_text().splitlines()
    head = " ".join(line.strip("# \\") for line in lines if line.startswith("# "))
    assert lines[0].startswith("# python train.py ")
    args = train.parse_args(shlex.split(head)[2:])
    assert args.dataset_config_file == f"configs/datasets/{path.name}"
    cfg = train.setup_cfg(args)
    assert cfg.DATASET.NAME.lower() == name_of(path)
    assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()
    assert cfg.TRAINER.NAME == "QCoOp" and cfg.DATASET.NUM_SHOTS == 16


def test_each_data_set_has_a_config():
    assert sorted(map(name_of, CONFIGS)) == sorted(
        name.lower()
        for name in DATASET_REGISTRY.registered_names()
        if DATASET_REGISTRY.get(name).__module__.startswith("datasets.")
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_builds_a_trainer_with_the_tiny_backbone(path, data_root, monkeypatch, request):
    monkeypatch.chdir(REPOSITORY)
    if path.stem in ("caltech101", "eurosat"):
        root = request.getfixturevalue("real_root")
    elif path.stem == "folder":
        root = request.getfixturevalue("tmp_path")
        for name in ("cat", "dog"):
            request.getfixturevalue("make_images")(root / name, 10)
    elif path.stem.startswith(GENERATED):
        root = data_root
    else:
        root = request.getfixturevalue("stand_in_root")
    args = [
        *("--root", str(root), "--trainer", "QCoOp", "--seed", "1"),
        *("--dataset-config-file", str(path)),
        *("--config-file", "configs/trainers/QCoOp/tiny.yaml"),
        *("DATASET.NUM_SHOTS", "1"),
    ]
    trainer = build_trainer(train.setup_cfg(train.parse_args(args)))
    batch = next(iter(trainer.test_loader))
    scores = trainer.model_inference(batch["img"])
    assert scores.shape == (len(batch["img"]), trainer.dm.dataset.num_classes)


@pytest.mark.parametrize("name", GENERATED)
def test_a_character_is_never_mirrored(name):
    cfg = get_cfg_default()
    cfg.merge_from_file(str(REPOSITORY / "configs" / "datasets" / f"{name}.yaml"))
    assert cfg.INPUT.TRANSFORMS == ("random_resized_crop", "normalize")
    assert cfg.INPUT.RRCROP_SCALE == (0.7, 1.0)


def test_built_from_the_real_config(tmp_path):
    cfg = get_cfg_default()
    cfg.merge_from_list(["DATASET.ROOT", str(tmp_path), "DATASET.NUM_SHOTS", 2])
    dataset = Digits(cfg)
    assert len(dataset.train_x) == 20 and dataset.classnames[7] == "seven"
