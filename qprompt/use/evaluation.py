"""Accuracy of a prompt on a folder of class folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import InvalidOptionError
from .images import find_images


class Evaluation(NamedTuple):
    """How many images of each class there are, and how many are classified right."""

    classnames: list[str]
    total: list[int]
    correct: list[int]

    @property
    def accuracy(self) -> float:
        """In percent, over all images."""
        return 100 * sum(self.correct) / sum(self.total)


def find_classes(folder: str) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the class names below a folder, and the path and class of each image.

    Args:
        folder: with one folder of images for each class, whose name is the class's.

    Raises:
        InvalidOptionError: there is no class folder.
        ImageError: a class folder without images.
    """
    path = Path(folder)
    folders = sorted(part for part in path.iterdir() if part.is_dir()) if path.is_dir() else []
    if not folders:
        raise InvalidOptionError(f"'{folder}' holds no folders: one for each class is needed")
    images = [
        (image, label) for label, part in enumerate(folders) for image in find_images([str(part)])
    ]
    return [part.name for part in folders], images


def count_correct(
    classnames: list[str], labels: Iterable[int], predicted: Iterable[int]
) -> Evaluation:
    """Compare labels and predictions, as class indices."""
    truth, guess = torch.tensor(list(labels)), torch.tensor(list(predicted))
    number = len(classnames)
    total = torch.bincount(truth, minlength=number)
    correct = torch.bincount(truth[truth == guess], minlength=number)
    return Evaluation(classnames, total.tolist(), correct.tolist())
