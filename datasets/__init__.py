"""The data sets; importing this package registers them in ``DATASET_REGISTRY``."""

from .caltech101 import Caltech101
from .digits import Digits
from .eurosat import EuroSAT
from .folder import Folder

__all__ = ["Caltech101", "Digits", "EuroSAT", "Folder"]
