"""Registered data sets."""

from dassl.utils import Registry

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg):
    """Return the data set that the configuration names."""
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
