from __future__ import annotations

from pathlib import Path

import pytest

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from datasets import Digits

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "datasets").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_name_a_data_set_and_open_with_their_command(path):
    cfg = get_cfg_default()
    cfg.merge_from_file(str(path))
    assert cfg.DATASET.NAME.lower() == path.stem
    assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()
    first = path.read_text().splitlines()[0]
    assert first.startswith("# python train.py") and f"configs/datasets/{path.name}" in first


def test_each_data_set_has_a_config():
    assert {path.stem for path in CONFIGS} == {
        name.lower()
        for name in DATASET_REGISTRY.registered_names()
        if DATASET_REGISTRY.get(name).__module__.startswith("datasets.")
    }


def test_a_digit_is_never_mirrored():
    cfg = get_cfg_default()
    cfg.merge_from_file(str(CONFIGS[[path.stem for path in CONFIGS].index("digits")]))
    assert cfg.INPUT.TRANSFORMS == ("random_resized_crop", "normalize")
    assert cfg.INPUT.RRCROP_SCALE == (0.7, 1.0)


def test_built_from_the_real_config(tmp_path):
    cfg = get_cfg_default()
    cfg.merge_from_list(["DATASET.ROOT", str(tmp_path), "DATASET.NUM_SHOTS", 2])
    dataset = Digits(cfg)
    assert len(dataset.train_x) == 20 and dataset.classnames[7] == "seven"
