"""Registered data sets, by name."""

from __future__ import annotations

from dassl.config import CfgNode
from dassl.data.datasets.base_dataset import DatasetBase
from dassl.utils import Cache, Registry, construct

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode, cache: Cache | None = None) -> DatasetBase:
    """Build the data set that cfg.DATASET.NAME names.

    Args:
        cfg: the configuration.
        cache: what it shares with other runs; None: nothing.

    Raises:
        UnknownNameError: no such data set is registered.
    """
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    return construct(dataset, cfg, cache)
