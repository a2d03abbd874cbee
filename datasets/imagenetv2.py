"""ImageNetV2: new test images for ImageNet's classes (Recht et al., 2019)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .base import EvaluationDataset
from .imagenet import read_classnames
from .items import items_of_folders
from .splits import Splits


@DATASET_REGISTRY.register()
class ImageNetV2(EvaluationDataset):
    """``ROOT/imagenetv2/imagenetv2-matched-frequency-format-val/<label>/*.jpeg``."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    published_sizes = (0, 0, 10000)
    template = "a photo of a {}."

    def read(self) -> Splits:
        names = read_classnames(self).values()
        classnames = {str(label): name for label, name in enumerate(names)}
        return Splits([], [], items_of_folders(self.image_dir, classnames))
