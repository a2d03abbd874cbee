"""Digits: the 1,797 handwritten digits that scikit-learn ships (Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

import os
import tempfile

import numpy as np
from PIL import Image

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import mkdir_if_missing

from .splits import SplitDataset, Splits, items_of_folders, split_items

CLASSNAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@DATASET_REGISTRY.register()
class Digits(SplitDataset):
    """``ROOT/digits/images/<class>/<nnnn>.png`` with its split file, made at the first use."""

    dataset_dir = "digits"
    image_dir = "images"
    split_file = "split_digits.json"
    template = "a photo of the digit {}."

    def load(self) -> Splits:
        if not os.path.isdir(self.image_dir):
            write_images(self.image_dir)
        return super().load()

    def read(self) -> Splits:
        return split_items(items_of_folders(self.image_dir, {name: name for name in CLASSNAMES}))


def write_images(folder: str) -> None:
    """Write every digit as an 8 x 8 grayscale PNG, bright ink on black, into class folders.

    The folder appears complete or not at all, also when two processes make it at once.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    parent = os.path.dirname(folder)
    mkdir_if_missing(parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".images-") as scratch:
        whole = os.path.join(scratch, "images")
        for name in CLASSNAMES:
            os.makedirs(os.path.join(whole, name))
        for i, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
            Image.fromarray(image).save(os.path.join(whole, CLASSNAMES[label], f"{i:04d}.png"))
        try:
            os.rename(whole, folder)
        except OSError:  # another process was first: its folder is whole, and holds the same
            if not os.path.isdir(folder):
                raise
