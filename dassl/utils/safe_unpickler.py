"""Reads checkpoints that pickle objects, without importing or calling what they name.

Upstream's checkpoints pickle a scheduler (and in it an optimizer) beside the tensors. This module
stands in for ``pickle`` in :func:`torch.load`: what rebuilds tensors and ordered dicts works, and
every other name in the file becomes a :class:`Placeholder`.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import torch


class Placeholder:
    """Takes whatever a pickle does to an object, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return self

    def _ignore(self, *args: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


class TorchFunction:
    """Calls a function of torch, and exposes no function object that a pickle could alter."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any) -> Any:
        return getattr(torch._utils, self._name)(*args)

    def __setstate__(self, state: Any) -> None:
        pass


class Unpickler(pickle._Unpickler):
    """An unpickler that knows tensors and ordered dicts only.

    It is the one in Python, because that in C makes room for any number that a damaged file gives
    to an object, up to dozens of gigabytes.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return TorchFunction(name)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return Placeholder


def load(file: Any, **kwargs: Any) -> Any:
    """Unpickle one object, as :func:`pickle.load` does."""
    return Unpickler(file, **kwargs).load()


def is_plain(value: Any) -> bool:
    """Return whether a value consists of tensors, numbers, strings and plain containers."""
    if isinstance(value, dict):
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, torch.Tensor | str | bytes | int | float | None)
