# ruff: noqa: F401
"""Data sets, transforms and loaders."""

from dassl.data.data_manager import DataManager, DatasetWrapper, build_data_loader
