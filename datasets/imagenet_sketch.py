"""ImageNet-Sketch: drawings of ImageNet's classes (Wang et al., 2019)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .base import EvaluationDataset
from .imagenet import read_classnames
from .items import items_of_folders
from .splits import Splits


@DATASET_REGISTRY.register()
class ImageNetSketch(EvaluationDataset):
    """``ROOT/imagenet-sketch/images/<WordNet id>/*.JPEG``."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    published_sizes = (0, 0, 50889)
    template = "a photo of a {}."

    def read(self) -> Splits:
        return Splits([], [], items_of_folders(self.image_dir, read_classnames(self)))
