"""Learners with weights of single classes, which other runs know by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NamedClasses(nn.Module):
    """A learner that loads the weights of any number of classes, and finds its own among them.

    Attributes:
        classnames: one name for each class of this run.
        classes: parameter, the UTF-8 bytes of JSON: name and number of rows of each class that has
            weights. A parameter because packed files hold nothing else.
        sized_by_classes: names of the parameters whose length follows from those classes.
    """

    classnames: Sequence[str]
    classes: Tensor
    sized_by_classes: tuple[str, ...] = ("classes",)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the weights of any classes."""
        self.resize_(state_dict)
        result = super().load_state_dict(state_dict, *args, **kwargs)
        self.match_()
        return result

    def resize_(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room for tensors, under their names in a plain or in a quantized module."""
        for name, parameter in self.named_parameters():
            plain = name.replace("parametrizations.", "").removesuffix(".original")
            tensor = tensors.get(name, tensors.get(plain))
            if tensor is not None and plain in self.sized_by_classes:
                parameter.data = parameter.new_empty(len(tensor), *parameter.shape[1:])

    def match_(self) -> None:
        """Find the classes of this run among those that have weights."""
        raise NotImplementedError

    def columns(self) -> tuple[list[int | None], list[int]]:
        """Return for each class with weights its index in this run, if any, and its rows."""
        names, numbers = zip(*json.loads(bytes(self.classes.byte().tolist())), strict=True)
        columns = {name: i for i, name in enumerate(_distinct(self.classnames))}
        return [columns.get(name) for name in _distinct(names)], list(numbers)


def encode_classes(names: Sequence[str], numbers: Sequence[int]) -> Tensor:
    """Return what :attr:`NamedClasses.classes` holds for some names and numbers of rows."""
    text = json.dumps(list(zip(names, numbers, strict=True)), ensure_ascii=False)
    return torch.tensor(list(text.encode()), dtype=torch.float)


def _distinct(names: Sequence[str]) -> list[tuple[str, int]]:
    """Number equal names, which ImageNet has."""
    return [(name, names[:i].count(name)) for i, name in enumerate(names)]
