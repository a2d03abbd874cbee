"""Items from folders and from lists, and splits of them."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from dassl.data.datasets import Datum
from dassl.utils import UserError, short_repr

from .splits import SplitError, Splits, image_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
SPLIT_SEED = 1  # of the splits made here; independent of cfg.SEED, so that all runs share them
VAL_SHARE = 0.2  # of the training images, where the official split has no validation images


class ClassFolderError(UserError):
    """A tree of class folders cannot be turned into a data set."""


def class_folders(folder: str) -> list[str]:
    """Return the sorted names of the folders in ``folder``, none if it does not exist.

    Hidden folders are left out, and what macOS puts into archives.
    """
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and _is_seen(e.name))


def _is_seen(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def items_of_folders(image_dir: str, classnames: Mapping[str, str]) -> list[Datum]:
    """Return one item for each image right in each class folder; images further down are reported.

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
        images = list(filter(_is_image, names))
        others = (n for n in names if _is_seen(n) and not _is_image(n))
        further_down = [found for n in others for found in _images_below(os.path.join(path, n))]
        if not images and not further_down:
            raise ClassFolderError(
                f"{path} is missing or holds no images (looked for {' '.join(IMAGE_SUFFIXES)})"
            )
        if not images:
            raise ClassFolderError(
                f"{path} holds no images itself, but {further_down[0]} is below it: if its folders "
                "are the classes, point to it instead; else move the images up"
            )
        if further_down:
            warnings.warn(
                f"{len(further_down)} images below {path}, the first being {further_down[0]}, are "
                "not used: only those right in a class folder are",
                stacklevel=2,
            )
        items += [Datum(os.path.join(path, n), label=label, classname=classname) for n in images]
    return items


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _images_below(top: str) -> Iterator[str]:
    for folder, folders, names in os.walk(top):  # nothing if it is a file
        folders[:] = sorted(filter(_is_seen, folders))
        yield from (os.path.join(folder, n) for n in sorted(names) if _is_image(n))


def items_of_list(
    image_dir: str,
    entries: Iterable[tuple[str, Hashable]],
    classnames: Mapping[Hashable, str],
    source: str,
) -> list[Datum]:
    """Return one item for each entry of an annotation file, in its order.

    Args:
        image_dir: the folder that the paths are relative to.
        entries: path and class key of each image.
        classnames: class name of each class key; its order gives the labels.
        source: the annotation file, for the message.

    Raises:
        SplitError: an image is of a class that ``classnames`` does not know.
    """
    labels = {key: label for label, key in enumerate(classnames)}
    items = []
    for path, key in entries:
        if key not in labels:
            known = short_repr(list(labels))
            raise SplitError(f"{source}: {path} has the class {key!r}, which is none of {known}")
        impath = image_path(image_dir, path, source)
        items.append(Datum(impath, label=labels[key], classname=classnames[key]))
    return items


def split_items(items: Sequence[Datum], train: float = 0.5, val: float = 0.2) -> Splits:
    """Split the items of each class at random, as published 50% train, 20% val and 30% test.

    The same items in the same order give the same split on every machine.

    Raises:
        ClassFolderError: a class has too few images to give each part one.
    """
    splits = Splits([], [], [])
    for own in _shuffled_classes(items):
        n_train, n_val = round(train * len(own)), round(val * len(own))
        parts = own[:n_train], own[n_train : n_train + n_val], own[n_train + n_val :]
        if not all(parts):
            raise ClassFolderError(
                f"{own[0].classname!r} has {len(own)} images; splitting it into train, val and "
                "test takes 4 or more"
            )
        for split, part in zip(splits, parts, strict=True):
            split.extend(part)
    return splits


def hold_out_val(
    items: Sequence[Datum], share: float = VAL_SHARE
) -> tuple[list[Datum], list[Datum]]:
    """Split the training images of each class at random, as published 80% train and 20% val.

    The same items in the same order give the same split on every machine.
    """
    train: list[Datum] = []
    val: list[Datum] = []
    for own in _shuffled_classes(items):
        n_val = round(share * len(own))
        train += own[n_val:]
        val += own[:n_val]
    return train, val


def _shuffled_classes(items: Sequence[Datum]) -> list[list[Datum]]:
    by_label: dict[int, list[Datum]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    rng = random.Random(SPLIT_SEED)
    for own in by_label.values():
        rng.shuffle(own)
    return list(by_label.values())
