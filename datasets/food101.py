"""Food101: dishes of 101 kinds (Bossard et al., 2014)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .annotations import matching_lines
from .base import SplitDataset
from .items import class_folders, hold_out_val, items_of_list
from .splits import Splits


@DATASET_REGISTRY.register()
class Food101(SplitDataset):
    """``ROOT/food-101/images/<class>/*.jpg`` with its split file or ``meta/{train,test}.txt``."""

    dataset_dir = "food-101"
    image_dir = "images"
    split_file = "split_zhou_Food101.json"
    published_sizes = (50500, 20200, 30300)
    template = "a photo of {}, a type of food."

    def read(self) -> Splits:
        classnames = {name: name for name in class_folders(self.image_dir)}

        def items(name: str) -> list[Datum]:
            path = self.path("meta", name)
            images = matching_lines(path, r"((.+)/.+)")
            entries = [(f"{image}.jpg", folder) for image, folder in images]
            return items_of_list(self.image_dir, entries, classnames, path)

        return Splits(*hold_out_val(items("train.txt")), items("test.txt"))
