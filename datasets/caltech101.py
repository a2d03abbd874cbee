"""Caltech101: objects of 100 classes (Fei-Fei et al., 2004)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .items import class_folders, items_of_folders, split_items
from .splits import Splits

IGNORED = ("BACKGROUND_Google", "Faces_easy")
RENAMED = {
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
}


@DATASET_REGISTRY.register()
class Caltech101(SplitDataset):
    """``ROOT/caltech-101/101_ObjectCategories/<class>/*.jpg`` with its split file."""

    dataset_dir = "caltech-101"
    image_dir = "101_ObjectCategories"
    split_file = "split_zhou_Caltech101.json"
    published_sizes = (4128, 1649, 2465)
    template = "a photo of a {}."

    def read(self) -> Splits:
        folders = (name for name in class_folders(self.image_dir) if name not in IGNORED)
        classnames = {name: RENAMED.get(name, name) for name in folders}
        return split_items(items_of_folders(self.image_dir, classnames))
