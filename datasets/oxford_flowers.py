"""OxfordFlowers: flowers of 102 kinds (Nilsback and Zisserman, 2008)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import mat_variable
from .base import SplitDataset
from .items import items_of_list, split_items
from .splits import SplitError, Splits, read_valid_json


@DATASET_REGISTRY.register()
class OxfordFlowers(SplitDataset):
    """``ROOT/oxford_flowers/jpg/*.jpg`` with its split file, or labels and names of the classes.

    The official split has 10 training images of each class, too few for 16 shots; without the
    split file, half of the images of each class train, as in CoOp.
    """

    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    split_file = "split_zhou_OxfordFlowers.json"
    published_sizes = (4093, 1633, 2463)
    template = "a photo of a {}, a type of flower."

    def read(self) -> Splits:
        path = self.path("imagelabels.mat")
        labels = mat_variable(path, "labels")
        names_path = self.path("cat_to_name.json")
        names = read_valid_json(names_path)
        if not isinstance(names, dict) or not all(map(str.isdecimal, names)):
            raise SplitError(f"{names_path} must map class numbers to names; get the file again")
        classnames = {number: names[str(number)] for number in sorted(map(int, names))}
        entries = [(f"image_{i:05d}.jpg", int(label)) for i, label in enumerate(labels, 1)]
        return split_items(items_of_list(self.image_dir, entries, classnames, path))
