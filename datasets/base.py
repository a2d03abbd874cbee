"""The declarative base classes of data sets."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image

from dassl.data.datasets import DatasetBase
from dassl.utils import Cache, OutputDirError, UserError, get_or_make, mkdir_if_missing
from dassl.utils.files import writing

from .fewshot import few_shot, subsample_classes
from .lists import read_shots
from .splits import (
    DatasetNotFoundError,
    Splits,
    check_classes,
    check_images,
    is_made_here,
    read_split,
    write_split,
)

SHOTS_FOLDER = "split_fewshot"  # of lists of shots, in the folder of a data set


class SplitDataset(DatasetBase):
    """A data set with a fixed split: read from its JSON file, or made once and saved there.

    A subclass states where things are and how to make the split when the file is absent::

        @DATASET_REGISTRY.register()
        class EuroSAT(SplitDataset):
            dataset_dir = "eurosat"                   # below cfg.DATASET.ROOT
            image_dir = "2750"                        # below dataset_dir
            split_file = "split_zhou_EuroSAT.json"    # below dataset_dir; "": nothing is saved
            published_sizes = (13500, 5400, 8100)     # train, val, test of that file
            template = "a centered satellite photo of {}."

            def read(self) -> Splits: ...

    Shots are drawn from all classes first, and base or new classes chosen from them afterwards, as
    in CoCoOp's experiments. A list of shots in the folder ``split_fewshot`` of the data set takes
    the place of drawing; see :mod:`datasets.shots`.

    Args:
        cfg: reads DATASET.ROOT, .NUM_SHOTS, .SUBSAMPLE_CLASSES and SEED.
        cache: shares the full split with other runs; None: it is read anew.

    Raises:
        DatasetNotFoundError: the image folder, a file, or an image of the split does not exist.
        SplitError: the split or an annotation file is malformed or inconsistent.
    """

    image_dir = ""
    split_file = ""
    published_sizes: tuple[int, int, int] | None = None

    def __init__(self, cfg: Any, cache: Cache | None = None) -> None:
        self.locate(cfg.DATASET.ROOT)
        splits = get_or_make(cache, ("splits", type(self), self.dataset_dir), self.load)
        self.notes = self.differences(splits)
        splits = self.few_shot(splits, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        train, val, test = subsample_classes(splits, cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val, test=test)

    @classmethod
    def at(cls, root: str) -> SplitDataset:
        """Return the data set below a root without its items, which :meth:`find` gives."""
        dataset = cls.__new__(cls)
        dataset.locate(root)
        return dataset

    def locate(self, root: str) -> None:
        """Turn the relative paths of the class into absolute ones."""
        if not root:
            raise UserError("DATASET.ROOT is empty; say where the data sets are with --root")
        self.root = os.path.abspath(os.path.expanduser(root))
        self.dataset_dir = os.path.join(self.root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, self.image_dir)
        self.split_path = os.path.join(self.dataset_dir, self.split_file)
        self.notes: list[str] = []

    def path(self, *names: str) -> str:
        """Return a path below the folder of the data set."""
        return os.path.join(self.dataset_dir, *names)

    def load(self) -> Splits:
        """Return the full split, and save it if it had to be made."""
        found = os.path.isfile(self.split_path)
        splits = self.find()
        if self.split_file and not found:
            self._save(splits)
        return splits

    def find(self) -> Splits:
        """Return the full split: from its file where there is one, else made; write nothing."""
        self.check_folder()
        if self.split_file and os.path.isfile(self.split_path):
            return read_split(self.split_path, self.image_dir)
        splits = self.read()
        check_classes(splits, self.dataset_dir)
        check_images(splits, self.dataset_dir)
        return splits

    def check_folder(self) -> None:
        """Raise DatasetNotFoundError unless the image folder exists."""
        if not os.path.isdir(self.image_dir):
            name = type(self).__name__
            raise DatasetNotFoundError(
                f"{name} expects its images under {self.image_dir}, which is not a folder; put "
                "them there or correct --root (DATASET.ROOT). docs/datasets.md says where to get "
                f"them, and so does python -m datasets.prepare {name} --root {self.root}"
            )

    def read(self) -> Splits:
        """Make the split from the files as they are distributed."""
        raise NotImplementedError

    def differences(self, splits: Splits) -> list[str]:
        """Say in a sentence how a full split differs from the published one, if it does."""
        if not self.published_sizes:
            return []
        if self.split_file and not os.path.isfile(self.split_path):
            return [f"no {self.split_file}: another split than the published one is made"]
        if self.split_file and is_made_here(self.split_path):
            return [f"{self.split_path} was made here, it is not the published split"]
        if tuple(map(len, splits)) != self.published_sizes:
            sizes = " / ".join(f"{size:,}" for size in self.published_sizes)
            return [f"not the published {sizes} images"]
        return []

    def shots_path(self, shots: int, seed: int) -> str:
        """Return where a list of shots would be."""
        return self.path(SHOTS_FOLDER, f"shot_{shots}-seed_{seed}.csv")

    def few_shot(self, splits: Splits, shots: int, seed: int) -> Splits:
        """Draw the few-shot subsets from the full split, or take those of a list."""
        path = self.shots_path(shots, seed)
        if os.path.isfile(path):
            self.notes.append(f"shots are those of {path}")
            return read_shots(path, splits, self.image_dir)
        return self.draw(splits, shots, seed)

    def draw(self, splits: Splits, shots: int, seed: int) -> Splits:
        """Draw the few-shot subsets from the full split."""
        return Splits(*few_shot(splits.train, splits.val, shots, seed), splits.test)

    def _save(self, splits: Splits) -> None:
        try:
            write_split(self.split_path, splits, self.image_dir)
        except FileExistsError:
            pass  # another process was first, and has made the same split
        except OutputDirError as error:
            warnings.warn(
                f"the split of {type(self).__name__} could not be saved ({error}); later runs make "
                "the same one for as long as the images stay the same",
                stacklevel=5,
            )


class EvaluationDataset(SplitDataset):
    """A data set without training images, such as a target of domain generalization.

    ``train_x`` holds the test images, as in CoOp, so that trainers that want a training loader can
    be built; training on it is refused, and shots are not drawn.
    """

    evaluation_only = True

    def find(self) -> Splits:
        self.check_folder()
        return self.read()

    def few_shot(self, splits: Splits, shots: int, seed: int) -> Splits:
        return Splits(splits.test, [], splits.test)


class GeneratedDataset(SplitDataset):
    """A data set whose images are made at the first use."""

    def load(self) -> Splits:
        if not os.path.isdir(self.image_dir):
            write_images(self.image_dir, self.images())
        return super().load()

    def images(self) -> Iterator[tuple[str, Image.Image]]:
        """Yield each image with its path below the image folder."""
        raise NotImplementedError


def write_images(folder: str, images: Iterator[tuple[str, Image.Image]]) -> None:
    """Write images into a folder, which appears complete or not at all.

    That holds also when two processes make it at once.

    Args:
        folder: a folder that does not exist.
        images: path below it, and image.
    """
    parent = os.path.dirname(folder)
    mkdir_if_missing(parent)
    with writing(folder):
        made = tempfile.TemporaryDirectory(dir=parent, prefix=".images-")
    with made as scratch:
        whole = os.path.join(scratch, "images")
        for path, image in images:
            target = os.path.join(whole, path)
            with writing(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                image.save(target)
        try:
            os.rename(whole, folder)
        except OSError:  # another process was first: its folder is whole, and holds the same
            if not os.path.isdir(folder):
                raise
