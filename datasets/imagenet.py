"""ImageNet: photos of 1,000 classes (Deng et al., 2009)."""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .fewshot import few_shot
from .items import items_of_folders
from .splits import DatasetNotFoundError, Splits
from .upstream import ImageNetFunctions


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFunctions, SplitDataset):
    """``ROOT/imagenet/images/{train,val}/<WordNet id>/*.JPEG`` with ``classnames.txt``.

    The official validation images are the test images and, as in CoOp, also the validation images:
    shots are drawn from the training images alone. Labels follow the sorted WordNet ids; two
    classes may have one name.
    """

    dataset_dir = "imagenet"
    image_dir = "images"
    published_sizes = (1281167, 50000, 50000)
    template = "a photo of a {}."

    def find(self) -> Splits:
        self.check_folder()
        classnames = read_classnames(self)
        train, test = (
            items_of_folders(os.path.join(self.image_dir, part), classnames)
            for part in ("train", "val")
        )
        return Splits(train, test, test)

    def few_shot(self, splits: Splits, shots: int, seed: int) -> Splits:
        train, _ = few_shot(splits.train, [], shots, seed)
        return Splits(train, splits.val, splits.test)


def read_classnames(dataset: SplitDataset) -> dict[str, str]:
    """Return the class name of each WordNet id, sorted by id: ImageNet's order of labels.

    The file is ``classnames.txt`` in the folder of the data set, else in ImageNet's.

    Raises:
        DatasetNotFoundError: there is no such file.
        SplitError: a line is not "<WordNet id> <class name>".
    """
    places = [dataset.path("classnames.txt"), os.path.join(dataset.root, "imagenet/classnames.txt")]
    path = next(filter(os.path.isfile, places), None)
    if path is None:
        raise DatasetNotFoundError(
            f"{places[-1]} is missing: the names of ImageNet's classes, a line for each with "
            "WordNet id and name. Take CoOp's file, since names are part of the prompts; "
            "docs/datasets.md says where it is"
        )
    return ImageNetFunctions.read_classnames(path)
