# ruff: noqa: F401
"""Image transforms."""

from typing import Any

from dassl.data.transforms import transforms as _transforms
from dassl.data.transforms.transforms import ImageTransform, build_transform, seeded


def __getattr__(name: str) -> Any:
    return getattr(_transforms, name)
