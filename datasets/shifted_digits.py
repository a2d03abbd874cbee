"""Digits under a shift: the targets of domain generalization from :class:`~datasets.Digits`.

Each is made from the test images of Digits alone, so that nothing a model was trained on is in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from dassl.data.datasets import DATASET_REGISTRY

from .base import EvaluationDataset, GeneratedDataset
from .digits import CLASSNAMES, Digits
from .items import items_of_folders
from .splits import Splits

SIDE = 32  # pixels; the digits are enlarged from 8, so that blur and rotation have some to work on


class ShiftedDigits(GeneratedDataset, EvaluationDataset):
    """The test images of Digits, each changed in one way."""

    image_dir = "images"
    template = Digits.template

    def images(self) -> Iterator[tuple[str, Image.Image]]:
        for item in Digits.at(self.root).load().test:
            name = os.path.basename(item.impath)
            # RandomState's stream never changes between numpy versions, unlike Generator's.
            random = np.random.RandomState(int(os.path.splitext(name)[0]))
            with Image.open(item.impath) as image:
                image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            yield f"{item.classname}/{name}", self.shift(image, random)

    def shift(self, image: Image.Image, random: np.random.RandomState) -> Image.Image:
        """Change one image, with all randomness from ``random``."""
        raise NotImplementedError

    def read(self) -> Splits:
        classnames = {name: name for name in CLASSNAMES}
        return Splits([], [], items_of_folders(self.image_dir, classnames))


@DATASET_REGISTRY.register()
class DigitsNoise(ShiftedDigits):
    """Gaussian noise in every pixel, with a standard deviation of a quarter of the range."""

    dataset_dir = "digits_noise"

    def shift(self, image: Image.Image, random: np.random.RandomState) -> Image.Image:
        noisy = np.asarray(image) + random.normal(0, 64, (SIDE, SIDE))
        return Image.fromarray(np.rint(noisy.clip(0, 255)).astype(np.uint8))


@DATASET_REGISTRY.register()
class DigitsBlur(ShiftedDigits):
    """Gaussian blur with a standard deviation of 3 of 32 pixels."""

    dataset_dir = "digits_blur"

    def shift(self, image: Image.Image, random: np.random.RandomState) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(3))


@DATASET_REGISTRY.register()
class DigitsInverted(ShiftedDigits):
    """Dark ink on white."""

    dataset_dir = "digits_inverted"

    def shift(self, image: Image.Image, random: np.random.RandomState) -> Image.Image:
        return ImageOps.invert(image)


@DATASET_REGISTRY.register()
class DigitsRotated(ShiftedDigits):
    """Rotation by 20 to 40 degrees, to either side."""

    dataset_dir = "digits_rotated"

    def shift(self, image: Image.Image, random: np.random.RandomState) -> Image.Image:
        angle = random.choice((-1, 1)) * random.uniform(20, 40)
        return image.rotate(angle, Image.Resampling.BICUBIC)
