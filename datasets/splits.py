"""Splits on disk, and the declarative base class of data sets that have one."""

from __future__ import annotations

import functools
import os
import random
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import OutputDirError, read_json, write_json

from .fewshot import few_shot, subsample_classes

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
SPLIT_SEED = 1  # of the splits made here; independent of cfg.SEED, so that all runs share them


class DatasetNotFoundError(FileNotFoundError):
    """The folder of a data set, or images that its split names, are not there."""


class SplitError(ValueError):
    """A split is malformed, or contradicts itself or the folders that it describes."""


class ClassFolderError(ValueError):
    """A tree of class folders cannot be turned into a data set."""


class Splits(NamedTuple):
    """The three parts of a data set, each a list of items."""

    train: list[Datum]
    val: list[Datum]
    test: list[Datum]


class SplitDataset(DatasetBase):
    """A data set with a fixed split: read from its JSON file, or made once and saved there.

    A subclass states where things are and how to make the split when the file is absent::

        @DATASET_REGISTRY.register()
        class EuroSAT(SplitDataset):
            dataset_dir = "eurosat"                   # below cfg.DATASET.ROOT
            image_dir = "2750"                        # below dataset_dir
            split_file = "split_zhou_EuroSAT.json"    # below dataset_dir; "": nothing is saved
            template = "a centered satellite photo of {}."

            def read(self) -> Splits: ...

    Shots are drawn from all classes first, and base or new classes chosen from them afterwards, as
    in CoCoOp's experiments.

    Args:
        cfg: reads DATASET.ROOT, .NUM_SHOTS, .SUBSAMPLE_CLASSES and SEED.

    Raises:
        DatasetNotFoundError: the image folder, or an image that the split names, does not exist.
        SplitError: the split file is malformed or inconsistent.
    """

    image_dir = ""
    split_file = ""

    def __init__(self, cfg: Any) -> None:
        if not cfg.DATASET.ROOT:
            raise ValueError("DATASET.ROOT is empty; say where the data sets are with --root")
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.image_dir = os.path.join(self.dataset_dir, self.image_dir)
        self.split_path = os.path.join(self.dataset_dir, self.split_file)

        train, val, test = self.load()
        train, val = few_shot(train, val, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        train, val, test = subsample_classes((train, val, test), cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=train, val=val, test=test)

    def load(self) -> Splits:
        """Return the full split: from its file where there is one, else made and saved."""
        if not os.path.isdir(self.image_dir):
            raise DatasetNotFoundError(
                f"{type(self).__name__} expects its images under {self.image_dir}, which is not a "
                "folder; put them there or correct --root (DATASET.ROOT)"
            )
        if self.split_file and os.path.isfile(self.split_path):
            return read_split(self.split_path, self.image_dir)
        splits = self.read()
        if self.split_file:
            self._save(splits)
        return splits

    def read(self) -> Splits:
        """Make the split from the files as they are distributed."""
        raise NotImplementedError(f"{self.split_path} is missing and cannot be made here")

    def _save(self, splits: Splits) -> None:
        check_classes(splits, self.image_dir)
        try:
            write_split(self.split_path, splits, self.image_dir)
        except FileExistsError:
            pass  # another process was first, and has made the same split
        except OutputDirError as error:
            warnings.warn(
                f"the split of {type(self).__name__} could not be saved ({error}); later runs make "
                "the same one for as long as the images stay the same",
                stacklevel=4,
            )


def read_split(path: str, image_dir: str) -> Splits:
    """Read a split file: ``{"train" | "val" | "test": [[path, label, class name], ...]}``.

    Args:
        path: the JSON file.
        image_dir: folder that the paths in it are relative to.

    Raises:
        SplitError: it is not such a file, or its labels and class names contradict each other.
        DatasetNotFoundError: it names images that do not exist.
    """
    content = read_valid_json(path)
    parts = [content.get(name) for name in Splits._fields] if isinstance(content, dict) else [None]
    if not all(isinstance(part, list) for part in parts):
        raise SplitError(f"{path} must hold an object with the lists {', '.join(Splits._fields)}")
    splits = Splits(
        *(
            [_datum(entry, image_dir, f"{path}: {name}[{i}]") for i, entry in enumerate(part)]
            for name, part in zip(Splits._fields, parts, strict=True)
        )
    )
    check_classes(splits, path)
    _check_images(splits, path, image_dir)
    return splits


def read_valid_json(path: str) -> Any:
    """Read a JSON file; raise SplitError with its name when it is not valid."""
    try:
        return read_json(path)
    except ValueError as error:
        raise SplitError(f"{path} is not valid JSON ({error}); correct or delete it") from error


def _datum(entry: object, image_dir: str, where: str) -> Datum:
    match entry:
        case [str(path), int(label), str(name)] if label >= 0 and not isinstance(label, bool):
            return Datum(impath=os.path.join(image_dir, path), label=label, classname=name)
    raise SplitError(f"{where} must be [image path, label, class name], not {reprlib.repr(entry)}")


def write_split(path: str, splits: Splits, image_dir: str) -> None:
    """Write a split file that `read_split` reads back; an existing one is never overwritten."""
    if os.path.exists(path):
        raise FileExistsError(f"{path} exists; delete it first to have another split")

    def entry(item: Datum) -> list[object]:
        relative = os.path.relpath(item.impath, image_dir).replace(os.sep, "/")
        return [relative, item.label, item.classname]

    write_json({name: list(map(entry, part)) for name, part in splits._asdict().items()}, path)


def check_classes(splits: Splits, source: str) -> None:
    """Raise SplitError unless classes are labelled 0..n-1, one name each, all with train images.

    Args:
        splits: the full split.
        source: the file or folder it came from, for the message.
    """
    name_of: dict[int, str] = {}
    label_of: dict[str, int] = {}
    for item in chain(*splits):
        name = name_of.setdefault(item.label, item.classname)
        if name != item.classname:
            raise SplitError(
                f"{source}: label {item.label} is both {name!r} and {item.classname!r}"
            )
        label = label_of.setdefault(item.classname, item.label)
        if label != item.label:
            raise SplitError(
                f"{source}: {item.classname!r} has both label {label} and {item.label}"
            )
    if not splits.train or not splits.test:
        raise SplitError(f"{source}: {'test' if splits.train else 'train'} holds no images")
    if max(name_of) >= len(name_of):
        raise SplitError(
            f"{source}: {len(name_of)} classes must have the labels 0 to {len(name_of) - 1}, but "
            f"{name_of[max(name_of)]!r} has {max(name_of)}"
        )
    untrained = sorted(set(name_of) - {item.label for item in splits.train})
    if untrained:
        names = ", ".join(repr(name_of[label]) for label in untrained[:5])
        raise SplitError(f"{source}: {len(untrained)} classes have no training images: {names}")


def _check_images(splits: Splits, source: str, image_dir: str) -> None:
    # One listing per folder instead of one stat per image: seconds, not minutes, over a network.
    @functools.cache
    def listing(folder: str) -> frozenset[str]:
        return frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()

    paths = [item.impath for item in chain(*splits)]
    missing = [p for p in paths if os.path.basename(p) not in listing(os.path.dirname(p))]
    if missing:
        raise DatasetNotFoundError(
            f"{len(missing)} of {len(paths)} images that {source} names do not exist, the first "
            f"being {missing[0]}; they are expected under {image_dir}"
        )


def class_folders(folder: str) -> list[str]:
    """Return the sorted names of the folders in ``folder``, none if it does not exist.

    Hidden folders are left out.
    """
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def items_of_folders(image_dir: str, classnames: Mapping[str, str]) -> list[Datum]:
    """Return one item for each image of each class folder.

    Args:
        image_dir: the folder that holds the class folders.
        classnames: class name of each class folder; its order gives the labels.

    Raises:
        ClassFolderError: there is no class folder, or one is missing or without images.
    """
    if not classnames:
        raise ClassFolderError(f"there are no class folders in {image_dir}")
    items = []
    for label, (folder, classname) in enumerate(classnames.items()):
        path = os.path.join(image_dir, folder)
        names = sorted(os.listdir(path)) if os.path.isdir(path) else []
        images = [n for n in names if n.lower().endswith(IMAGE_SUFFIXES) and n[0] != "."]
        if not images:
            raise ClassFolderError(
                f"{path} is missing or holds no images (looked for {' '.join(IMAGE_SUFFIXES)})"
            )
        items += [Datum(os.path.join(path, n), label=label, classname=classname) for n in images]
    return items


def split_items(items: Sequence[Datum]) -> Splits:
    """Split the items of each class at random, 50% train, 20% val and 30% test.

    The same items in the same order give the same split on every machine.

    Raises:
        ClassFolderError: a class has too few images to give each part one.
    """
    by_label: dict[int, list[Datum]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    rng = random.Random(SPLIT_SEED)
    splits = Splits([], [], [])
    for own in by_label.values():
        rng.shuffle(own)
        n_train, n_val = round(0.5 * len(own)), round(0.2 * len(own))
        parts = own[:n_train], own[n_train : n_train + n_val], own[n_train + n_val :]
        if not all(parts):
            raise ClassFolderError(
                f"{own[0].classname!r} has {len(own)} images; splitting it into train, val and "
                "test takes 4 or more"
            )
        for split, part in zip(splits, parts, strict=True):
            split.extend(part)
    return splits
