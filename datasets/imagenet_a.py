"""ImageNet-A: photos of 200 ImageNet classes that models get wrong (Hendrycks et al., 2021)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .base import EvaluationDataset
from .imagenet import read_classnames
from .items import class_folders, items_of_folders
from .splits import SplitError, Splits


class ImageNetSubset(EvaluationDataset):
    """Some of ImageNet's classes, labelled from 0 in ImageNet's order; the others are no choice."""

    template = "a photo of a {}."

    def read(self) -> Splits:
        names = read_classnames(self)
        folders = class_folders(self.image_dir)
        if unknown := [folder for folder in folders if folder not in names]:
            raise SplitError(f"{self.image_dir}/{unknown[0]} is no class of classnames.txt")
        classnames = {folder: names[folder] for folder in folders}
        return Splits([], [], items_of_folders(self.image_dir, classnames))


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetSubset):
    """``ROOT/imagenet-adversarial/imagenet-a/<WordNet id>/*.jpg``."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    published_sizes = (0, 0, 7500)
