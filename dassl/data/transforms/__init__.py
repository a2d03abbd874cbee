# ruff: noqa: F401
"""Image transforms."""

from typing import Any

from dassl.data.transforms import transforms as _transforms
from dassl.data.transforms.transforms import build_transform


def __getattr__(name: str) -> Any:
    return getattr(_transforms, name)
