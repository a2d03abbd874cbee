"""Image files, and what CLIP takes of them: as train.py evaluates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from ..errors import InvalidOptionError, QPromptError
from ..prompt import Prompt

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
INTERPOLATIONS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST_EXACT,
}


class ImageError(QPromptError, OSError):
    """An image that is missing, cannot be decoded, or has grey levels of more than 8 bits."""


class Preprocess:
    """From an image to pixels: resized, cropped in the centre, normalised.

    Args:
        size: (height, width).
        interpolation: "bilinear", "bicubic" or "nearest".
        mean, std: of the pixels' channels, from 0 to 1.
    """

    def __init__(
        self,
        size: tuple[int, int],
        interpolation: str,
        mean: Iterable[float],
        std: Iterable[float],
    ) -> None:
        self.size, self.interpolation = size, interpolation
        self.mean, self.std = tuple(mean), tuple(std)
        mode = INTERPOLATIONS[interpolation]
        resize, crop = transforms.Resize(max(size), mode), transforms.CenterCrop(size)
        self._crop = transforms.Compose([resize, crop, transforms.PILToTensor()])
        self._normalize = transforms.Normalize(self.mean, self.std)

    @classmethod
    def of(cls, prompt: Prompt, backbone: CLIP) -> Preprocess:
        """Return that of the training run, or where the file does not say, the backbone's own."""
        size = backbone.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        recorded = prompt.read_json("input")
        if recorded is None:
            mean = getattr(backbone.visual, "image_mean", None) or OPENAI_DATASET_MEAN
            std = getattr(backbone.visual, "image_std", None) or OPENAI_DATASET_STD
            return cls((height, width), "bicubic", mean, std)
        try:
            return cls(
                (height, width), recorded["interpolation"], recorded["mean"], recorded["std"]
            )
        except (KeyError, TypeError) as error:
            raise InvalidOptionError(
                f"'{prompt.path}' does not say how images are prepared: its input is {recorded}"
            ) from error

    def __call__(self, image: Any) -> Tensor:
        """Return pixels (3, height, width) in float32.

        Args:
            image: a file's path, a PIL image, a uint8 tensor (3, h, w), or a float tensor that is
                such pixels already.

        Raises:
            ImageError: as :func:`read_image`.
            InvalidOptionError: a tensor of another shape.
        """
        if isinstance(image, Tensor) and image.is_floating_point():
            if image.shape != (3, *self.size):
                raise InvalidOptionError(
                    f"pixels of shape {tuple(image.shape)}: floats are taken as they are, and the "
                    f"backbone takes {(3, *self.size)}; give PIL images, paths or uint8 tensors"
                )
            return image
        if isinstance(image, Tensor):
            image = transforms.functional.to_pil_image(image)
        elif not isinstance(image, Image.Image):
            image = read_image(image)
        pixels: Tensor = self._normalize(self._crop(_to_rgb(image)).float().div(255))
        return pixels


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as an RGB image.

    Raises:
        ImageError: it is missing, cannot be decoded, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            return _to_rgb(image)
    except FileNotFoundError:
        raise ImageError(f"there is no image '{os.fspath(path)}'") from None
    except QPromptError as error:
        raise ImageError(f"image '{os.fspath(path)}' {error}") from None
    except Exception as error:  # decoders raise anything on bad data
        raise ImageError(f"image '{os.fspath(path)}' cannot be decoded ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        raise ImageError(f"has pixels of type {image.mode}: save it with 8 bits a channel")
    if isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    return image.convert("RGB")


def find_images(paths: Iterable[str]) -> Iterator[str]:
    """Yield files as they are, and the images below folders in the order of their names.

    Raises:
        ImageError: a folder without an image.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        found = False
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in sorted(files):
                if name.lower().endswith(SUFFIXES):
                    found = True
                    yield os.path.join(folder, name)
        if not found:
            raise ImageError(f"no image lies below '{path}' (of {', '.join(SUFFIXES)})")


def stack(images: list[Any], preprocess: Preprocess) -> Tensor:
    """Return the pixels (n, 3, height, width) of some images."""
    return torch.stack([preprocess(image) for image in images])
