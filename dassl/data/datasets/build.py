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
        UserError: DATASET.TEMPLATE is no template.
    """
    cls = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    dataset = construct(cls, cfg, cache)
    if cfg.DATASET.TEMPLATE is not None:
        dataset.use_templates(cfg.DATASET.TEMPLATE)
    for note in dataset.notes:
        print(f"Note: {note}")
    return dataset
