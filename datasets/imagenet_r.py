"""ImageNet-R: renditions, such as art, of 200 ImageNet classes (Hendrycks et al., 2021)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet_a import ImageNetSubset


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetSubset):
    """``ROOT/imagenet-rendition/imagenet-r/<WordNet id>/*.jpg``."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    published_sizes = (0, 0, 30000)
