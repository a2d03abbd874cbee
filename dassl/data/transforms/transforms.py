"""Image transforms for training and evaluation, made of torchvision's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from dassl.config import CfgNode
from dassl.utils import UnknownNameError, nearest

CHOICES = ("random_resized_crop", "resize", "center_crop", "random_flip", "normalize")


@cache
def interpolation_modes() -> dict[str, Any]:
    """Return torchvision's interpolation modes by their names in cfg.INPUT.INTERPOLATION."""
    from torchvision.transforms import InterpolationMode

    return {mode.value: mode for mode in InterpolationMode if mode.value in _INTERPOLATIONS}


_INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


def __getattr__(name: str) -> Any:  # torchvision takes over a second to import
    if name == "INTERPOLATION_MODES":
        return interpolation_modes()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None
) -> Callable[[Any], Any] | None:
    """Build the transform from an RGB image to a float tensor (3, H, W).

    Training images are cropped at random with "random_resized_crop", else cropped in the centre
    with "center_crop", else resized; "random_flip" mirrors half of them. Evaluation images are
    resized and cropped in the centre. "normalize" applies to both.

    Args:
        cfg: INPUT.SIZE, INTERPOLATION, TRANSFORMS, RRCROP_SCALE, PIXEL_MEAN, PIXEL_STD.
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
        _check("transform", choice, CHOICES)
    _check("interpolation", cfg.INPUT.INTERPOLATION, _INTERPOLATIONS)

    from torchvision import transforms as T

    size = tuple(cfg.INPUT.SIZE)
    interpolation = interpolation_modes()[cfg.INPUT.INTERPOLATION]
    if is_train and "random_resized_crop" in choices:
        scale = tuple(cfg.INPUT.RRCROP_SCALE)
        steps = [T.RandomResizedCrop(size, scale, interpolation=interpolation)]
    elif is_train and "center_crop" not in choices:
        steps = [T.Resize(size, interpolation)]
    else:
        steps = [T.Resize(max(size), interpolation), T.CenterCrop(size)]
    if is_train and "random_flip" in choices:
        steps.append(T.RandomHorizontalFlip())
    steps.append(T.ToTensor())
    if "normalize" in choices:
        steps.append(T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    if cfg.VERBOSE:
        print(f"Building transform_{'train' if is_train else 'test'}")
        print(*(f"+ {step}" for step in steps), sep="\n")
    return T.Compose(steps)


def _check(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        close = nearest(name, known, n=1)
        hint = f'did you mean "{close[0]}"? ' if close else ""
        raise UnknownNameError(f'Unknown {kind} "{name}": {hint}Known: {", ".join(known)}')
