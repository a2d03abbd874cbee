"""Splits, and the files that hold them."""

from __future__ import annotations

import functools
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from dassl.data.datasets import Datum
from dassl.utils import UserError, read_json, short_repr, write_json

MADE_HERE = "made by QPrompt"  # the first key of split files that are not the published ones


class DatasetNotFoundError(UserError, FileNotFoundError):
    """The folder of a data set, or a file that belongs into it, is not there."""


class MissingImagesError(DatasetNotFoundError):
    """Images that a split names are not there.

    Attributes:
        splits: the split.
        missing: the paths of the images that do not exist.
    """

    def __init__(self, message: str, splits: Splits, missing: Sequence[str]) -> None:
        super().__init__(message)
        self.splits = splits
        self.missing = missing


class SplitError(UserError):
    """A split or an annotation file is malformed, or contradicts itself or the folders."""


class Splits(NamedTuple):
    """The three parts of a data set, each a list of items."""

    train: list[Datum]
    val: list[Datum]
    test: list[Datum]


def read_split(path: str, image_dir: str) -> Splits:
    """Read a split file: ``{"train" | "val" | "test": [[path, label, class name], ...]}``.

    Args:
        path: the JSON file.
        image_dir: folder that the paths in it are relative to.

    Raises:
        SplitError: it is not such a file, or its labels and class names contradict each other.
        MissingImagesError: it names images that do not exist.
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
    check_images(splits, path)
    return splits


def read_valid_json(path: str) -> Any:
    """Read a JSON file; raise an error with its name when it is missing or not valid."""
    check_file(path)
    try:
        return read_json(path)
    except ValueError as error:
        raise SplitError(f"{path} is not valid JSON ({error}); correct or delete it") from error


def check_file(path: str) -> None:
    """Raise DatasetNotFoundError unless ``path`` is a file."""
    if not os.path.isfile(path):
        raise DatasetNotFoundError(
            f"{path} is missing; it belongs to the data set, see docs/datasets.md"
        )


def _datum(entry: object, image_dir: str, where: str) -> Datum:
    match entry:
        case [str(path), int(label), str(name)] if label >= 0 and not isinstance(label, bool):
            return Datum(image_path(image_dir, path, where), label=label, classname=name)
    raise SplitError(f"{where} must be [image path, label, class name], not {short_repr(entry)}")


def image_path(image_dir: str, path: str, where: str) -> str:
    """Return the path of an image that a file names, with either kind of slash, below a folder.

    Raises:
        SplitError: it lies outside of the folder.
    """
    relative = os.path.normpath(path.replace("\\", "/"))
    if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
        raise SplitError(
            f"{where} names {short_repr(path)}, outside of {image_dir}: if that is meant, put a "
            "link to the image's folder there and correct the path"
        )
    return os.path.join(image_dir, relative)


def relative_path(image_dir: str, item: Datum) -> str:
    """Return the path of an image below a folder as files name it: with slashes."""
    return os.path.relpath(item.impath, image_dir).replace(os.sep, "/")


def write_split(path: str, splits: Splits, image_dir: str) -> None:
    """Write a split file that `read_split` reads back; an existing one is never overwritten.

    It says that it was made here, because it has the name of the published one.
    """
    if os.path.exists(path):
        raise FileExistsError(f"{path} exists; delete it first to have another split")

    def entry(item: Datum) -> list[object]:
        return [relative_path(image_dir, item), item.label, item.classname]

    parts = {name: list(map(entry, part)) for name, part in splits._asdict().items()}
    write_json({MADE_HERE: True, **parts}, path)


def is_made_here(path: str) -> bool:
    """Return whether a split file is one that :func:`write_split` wrote."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return MADE_HERE in file.read(100)


def check_labels(splits: Splits, source: str) -> None:
    """Raise SplitError unless each label has one name, each name one label, each image one class.

    Args:
        splits: the full split.
        source: the file or folder it came from, for the message.
    """
    name_of: dict[int, str] = {}
    label_of: dict[str, int] = {}
    class_of: dict[str, str] = {}
    for item in chain(*splits):
        if not isinstance(item.classname, str) or not item.classname.strip():
            raise SplitError(f"{source}: label {item.label} has the name {item.classname!r}")
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
        before = class_of.setdefault(item.impath, item.classname)
        if before != item.classname:
            raise SplitError(
                f"{source}: {item.impath} is of two classes, {before!r} and {item.classname!r}; "
                "multi-label data is not supported: keep one"
            )


def check_classes(splits: Splits, source: str) -> None:
    """Raise SplitError unless classes are labelled 0..n-1, one name each, all with train images.

    Args:
        splits: the full split.
        source: the file or folder it came from, for the message.
    """
    if not splits.train or not splits.test:
        raise SplitError(f"{source}: {'test' if splits.train else 'train'} holds no images")
    check_labels(splits, source)
    name_of = {item.label: item.classname for item in chain(*splits)}
    if max(name_of) >= len(name_of):
        raise SplitError(
            f"{source}: {len(name_of)} classes must have the labels 0 to {len(name_of) - 1}, but "
            f"{name_of[max(name_of)]!r} has {max(name_of)}"
        )
    untrained = sorted(set(name_of) - {item.label for item in splits.train})
    if untrained:
        names = ", ".join(repr(name_of[label]) for label in untrained[:5])
        raise SplitError(f"{source}: {len(untrained)} classes have no training images: {names}")


def check_images(splits: Splits, source: str) -> None:
    """Raise MissingImagesError unless every image of the split exists; report those listed twice.

    Args:
        splits: the full split.
        source: the file or folder it came from, for the message.
    """

    # One listing per folder instead of one stat per image: seconds, not minutes, over a network.
    @functools.cache
    def listing(folder: str) -> frozenset[str]:
        if not os.path.isdir(folder):
            return frozenset()
        with os.scandir(folder) as entries:
            return frozenset(e.name for e in entries if not e.is_symlink() or os.path.exists(e))

    paths = [item.impath for item in chain(*splits)]
    missing = [p for p in paths if os.path.basename(p) not in listing(os.path.dirname(p))]
    if missing:
        link = f", a link to {os.readlink(missing[0])}" if os.path.islink(missing[0]) else ""
        raise MissingImagesError(
            f"{len(missing)} of {len(paths)} images that {source} names do not exist, the first "
            f"being {missing[0]}{link}; put them there",
            splits,
            missing,
        )
    if repeated := [path for path, times in Counter(paths).items() if times > 1]:
        warnings.warn(
            f"{source} lists {len(repeated)} images more than once, the first being {repeated[0]}; "
            "each counts as often",
            stacklevel=4,
        )
