"""Registered data sets, by name."""

from __future__ import annotations

from dassl.config import CfgNode
from dassl.data.datasets.base_dataset import DatasetBase
from dassl.utils import Registry

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> DatasetBase:
    """Build the data set that cfg.DATASET.NAME names.

    Raises:
        UnknownNameError: no such data set is registered.
    """
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    return dataset(cfg)
