"""Digits: the 1,797 handwritten digits that scikit-learn ships (Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from dassl.data.datasets import DATASET_REGISTRY

from .base import GeneratedDataset
from .items import items_of_folders, split_items
from .splits import Splits

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@DATASET_REGISTRY.register()
class Digits(GeneratedDataset):
    """``ROOT/digits/images/<class>/<nnnn>.png`` with its split file, made at the first use."""

    dataset_dir = "digits"
    image_dir = "images"
    split_file = "split_digits.json"
    template = "a photo of the digit {}."

    def images(self) -> Iterator[tuple[str, Image.Image]]:
        """Yield every digit, 8 x 8 pixels in grayscale, bright ink on black."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        for i, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
            yield f"{CLASSNAMES[label]}/{i:04d}.png", Image.fromarray(image)

    def read(self) -> Splits:
        return split_items(items_of_folders(self.image_dir, {name: name for name in CLASSNAMES}))
