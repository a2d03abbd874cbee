"""Image transforms for training and evaluation, made of torchvision's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from dassl.config import CfgNode
from dassl.utils import check_choice

CHOICES = (
    "random_resized_crop",
    "random_crop",
    "resize",
    "center_crop",
    "random_flip",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
    "normalize",
)


@cache
def interpolation_modes() -> dict[str, Any]:
    """Return torchvision's interpolation modes by their names in cfg.INPUT.INTERPOLATION."""
    from torchvision.transforms import InterpolationMode

    modes = {mode.value: mode for mode in InterpolationMode if mode.value in _INTERPOLATIONS}
    return {**modes, "nearest": InterpolationMode.NEAREST_EXACT}  # for tensors, too, as Pillow's


_INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


def __getattr__(name: str) -> Any:  # torchvision takes over a second to import
    if name == "INTERPOLATION_MODES":
        return interpolation_modes()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw torch's random numbers on the CPU from a seed, and go on as before afterwards."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        yield


class Normalize:
    """(x - mean) / std in each channel, as torchvision's; the constants stay on the device.

    Args:
        mean, std: a number for each channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = list(mean), list(std)
        self._constants: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalize float32 images (..., channels, height, width)."""
        if images.device not in self._constants:
            mean, std = (torch.tensor(x)[:, None, None] for x in (self.mean, self.std))
            self._constants[images.device] = mean.to(images.device), std.to(images.device)
        mean, std = self._constants[images.device]
        return images.sub(mean).div_(std)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std}, inplace=False)"


class ImageTransform:
    """From RGB images to float tensors (3, H, W): geometry on 8-bit pixels, then normalisation.

    Args:
        geometry: from a PIL image or a uint8 tensor (3, height, width) to a uint8 tensor (3, H, W).
        normalize: of floats from 0 to 1, or None.
    """

    def __init__(
        self, geometry: Callable[[Any], torch.Tensor], normalize: Callable[[Any], Any] | None
    ) -> None:
        self.geometry = geometry
        self.normalize = normalize

    def __call__(self, image: Any) -> torch.Tensor:
        """Transform a PIL image."""
        return self._to_float(self.geometry(image))

    def batch(self, images: Sequence[torch.Tensor], seeds: Sequence[int | None]) -> torch.Tensor:
        """Transform uint8 tensors (3, height, width), all with seeds or none, to (n, 3, H, W)."""
        pixels = []
        with torch.random.fork_rng(devices=[], enabled=None not in seeds):
            for image, seed in zip(images, seeds, strict=True):
                if seed is not None:
                    torch.default_generator.manual_seed(seed)
                pixels.append(self.geometry(image))
        return self._to_float(torch.stack(pixels))

    def _to_float(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = pixels.contiguous().float().div(255)
        return scaled if self.normalize is None else self.normalize(scaled)

    def __repr__(self) -> str:
        return f"{self.geometry}, {self.normalize}"


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None
) -> ImageTransform | None:
    """Build the transform from an RGB image to a float tensor (3, H, W).

    Training images are cropped at random with "random_resized_crop", else cropped in the centre
    with "center_crop", else resized; "random_crop" then moves them a little, "random_flip" mirrors
    half of them, and the others of ``CHOICES`` change what they look like, in that order.
    Evaluation images are resized and cropped in the centre. "normalize" applies to both.

    Args:
        cfg: the node INPUT.
        is_train: for training, or for evaluation.
        choices: used in place of cfg.INPUT.TRANSFORMS.

    Returns:
        The transform, or None when cfg.INPUT.NO_TRANSFORM is set.

    Raises:
        UnknownNameError: a choice or the interpolation is not known.
    """
    if cfg.INPUT.NO_TRANSFORM:
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        check_choice("INPUT.TRANSFORMS", choice, CHOICES)
    check_choice("INPUT.INTERPOLATION", cfg.INPUT.INTERPOLATION, _INTERPOLATIONS)

    from torchvision.transforms import v2

    size = tuple(cfg.INPUT.SIZE)
    interpolation = interpolation_modes()[cfg.INPUT.INTERPOLATION]
    if is_train and "random_resized_crop" in choices:
        scale = tuple(cfg.INPUT.RRCROP_SCALE)
        steps = [v2.RandomResizedCrop(size, scale, interpolation=interpolation)]
    elif is_train and "center_crop" not in choices:
        steps = [v2.Resize(size, interpolation)]
    else:
        steps = [v2.Resize(max(size), interpolation), v2.CenterCrop(size)]
    if is_train:
        steps += _augmentations(cfg.INPUT, choices, size)
    steps.append(v2.PILToTensor())
    mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
    normalize = Normalize(mean, std) if "normalize" in choices else None
    if cfg.VERBOSE:
        print(f"Building transform_{'train' if is_train else 'test'}")
        print(*(f"+ {step}" for step in [*steps, normalize] if step), sep="\n")
    return ImageTransform(v2.Compose(steps), normalize)


def _augmentations(cfg: CfgNode, choices: Sequence[str], size: Sequence[int]) -> list[Any]:
    """The chosen steps after the first crop, in the order of ``CHOICES``."""
    from torchvision.transforms import v2

    jitter = (cfg.COLORJITTER_B, cfg.COLORJITTER_C, cfg.COLORJITTER_S, cfg.COLORJITTER_H)
    steps = {
        "random_crop": lambda: v2.RandomCrop(size, padding=cfg.CROP_PADDING),
        "random_flip": v2.RandomHorizontalFlip,
        "imagenet_policy": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET),
        "cifar10_policy": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
        "svhn_policy": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.SVHN),
        "randaugment": lambda: v2.RandAugment(cfg.RANDAUGMENT_N, cfg.RANDAUGMENT_M),
        "colorjitter": lambda: v2.ColorJitter(*jitter),
        "randomgrayscale": lambda: v2.RandomGrayscale(cfg.RGS_P),
        "gaussian_blur": lambda: v2.RandomApply([v2.GaussianBlur(cfg.GB_K)], cfg.GB_P),
    }
    return [make() for choice, make in steps.items() if choice in choices]
