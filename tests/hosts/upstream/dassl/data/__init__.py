"""Data."""

from dassl.data.data_manager import DataManager

__all__ = ["DataManager"]
