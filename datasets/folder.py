"""Folder: a user's own images, in class folders or named by lists."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from itertools import chain
from unicodedata import normalize

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import short_repr

from .base import SHOTS_FOLDER, SplitDataset
from .items import class_folders, items_of_folders, items_of_list, split_items
from .lists import read_rows
from .splits import SplitError, Splits, check_classes, check_images, check_labels, read_valid_json

ALL = "images"  # the list that names all images; the others are called as their parts
LIST_SUFFIXES = (".csv", ".txt")


@DATASET_REGISTRY.register()
class Folder(SplitDataset):
    """Images below ``ROOT``, in the first of these forms that is there:

    - ``images.csv`` or ``images.txt``, a line for each image with its path below ``ROOT``, class
      and, if you like, train, val or test; or a list with the name of each part;
    - ``train/<class>/*``, ``test/<class>/*`` and, if you like, ``val/<class>/*``;
    - ``<class>/*``.

    Without parts, the images are split once, and ``split.json`` keeps that. With a test part alone,
    the data set is for evaluation only. Capitals in the names of parts and lists do not matter.
    Class names are the folders' names with spaces for underscores, or what ``classnames.json``
    ({class: name}) says instead.
    """

    split_file = "split.json"
    named_by_root = True

    def find(self) -> Splits:
        self.check_folder()
        parts = self._listed() or self._foldered()
        if not parts or "" in parts:
            splits = super().find()
            self._check_is_current(splits)
            return splits
        self.split_file = ""  # nothing is to be made, or saved
        splits = Splits(*(parts.get(name, []) for name in Splits._fields))
        check = check_labels if parts.keys() == {"test"} else check_classes
        check(splits, self.dataset_dir)
        check_images(splits, self.dataset_dir)
        return splits

    def read(self) -> Splits:
        return split_items(self._unsplit())

    def few_shot(self, splits: Splits, shots: int, seed: int) -> Splits:
        if splits.train:
            return super().few_shot(splits, shots, seed)
        self.evaluation_only = True
        return Splits(splits.test, [], splits.test)

    def _folders(self) -> list[str]:
        return [name for name in class_folders(self.image_dir) if name != SHOTS_FOLDER]

    def _unsplit(self) -> list[Datum]:
        return self._listed().get("") or items_of_folders(
            self.image_dir, self._classnames(self._folders())
        )

    def _check_is_current(self, splits: Splits) -> None:
        present = self._unsplit()
        differing = {i.classname for i in splits.train} ^ {i.classname for i in present}
        if differing:
            raise SplitError(
                f"{self.split_path} and the images disagree about the classes "
                f"{short_repr(sorted(differing))}; delete the file to have the split made again"
            )
        added = len({i.impath for i in present} - {i.impath for i in chain(*splits)})
        if added:
            warnings.warn(
                f"{added} images are not in {self.split_path} and not used; delete the file to "
                "have the split made again",
                stacklevel=5,
            )

    def _listed(self) -> dict[str, list[Datum]]:
        """Return the images that lists name, by part; under "" if these do not say parts."""
        stems = ((os.path.splitext(name.lower()), name) for name in os.listdir(self.dataset_dir))
        lists = self._by_part(
            (stem, name)
            for (stem, suffix), name in stems
            if stem in (ALL, *Splits._fields) and suffix in LIST_SUFFIXES
        )
        if not lists:
            return {}
        if ALL in lists and len(lists) > 1:
            raise SplitError(
                f"{self.dataset_dir} holds {', '.join(lists.values())}: keep {ALL} alone, or the "
                "lists of parts"
            )
        rows = {
            name: read_rows(self.path(name), "" if stem == ALL else stem)
            for stem, name in lists.items()
        }
        labels = {row.classname for row in chain(*rows.values())}
        numbered = all(map(str.isdecimal, labels))
        classnames = self._classnames(sorted(labels, key=int if numbered else None))
        parts: dict[str, list[Datum]] = {}
        for name, own in rows.items():
            for part in dict.fromkeys(row.part for row in own):
                entries = [(row.path, row.classname) for row in own if row.part == part]
                parts[part] = items_of_list(self.image_dir, entries, classnames, self.path(name))
        return parts

    def _foldered(self) -> dict[str, list[Datum]]:
        """Return the images in folders of parts, by part; nothing if there are no such folders."""
        folders = self._folders()
        within = {name: class_folders(self.path(name)) for name in folders}
        parts = self._by_part(
            (name.lower(), name)
            for name in folders
            if name.lower() in Splits._fields and within[name]
        )
        if not parts:
            return {}
        if others := sorted(set(folders) - set(parts.values())):
            raise SplitError(
                f"{self.image_dir} holds {', '.join(parts.values())} and also "
                f"{', '.join(others[:5])}; the parts are called {', '.join(Splits._fields)}: "
                "rename or move the others"
            )
        classnames = self._classnames(sorted(set(chain(*within.values()))))
        if parts.keys() != {"test"}:
            parts = {"train": "train", "test": "test"} | parts  # if one is missing, say so
        return {part: items_of_folders(self.path(name), classnames) for part, name in parts.items()}

    def _by_part(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        names: dict[str, str] = {}
        for part, name in sorted(pairs):
            if part in names:
                raise SplitError(
                    f"{self.dataset_dir} holds both {names[part]} and {name}: keep one of them"
                )
            names[part] = name
        return names

    def _classnames(self, labels: Sequence[str]) -> dict[str, str]:
        path = self.path("classnames.json")
        given = read_valid_json(path) if os.path.isfile(path) else {}
        if isinstance(given, dict):  # folders are as on the disk that they were made on
            spelling = {normalize("NFC", label): label for label in labels}
            given = {spelling.get(normalize("NFC", key), key): name for key, name in given.items()}
        if not isinstance(given, dict) or not given.keys() <= set(labels):
            raise SplitError(
                f"{path} must map classes to their names; the classes are {short_repr(labels)}"
            )
        label_of: dict[str, str] = {}
        for label in labels:
            name = given.get(label, label.replace("_", " "))
            if not isinstance(name, str) or not name.strip():
                raise SplitError(f"{label!r} has the name {name!r}: give another one in {path}")
            name = normalize("NFC", name)
            if name in label_of:
                raise SplitError(
                    f"{label_of[name]!r} and {label!r} are both called {name!r}: rename one, or "
                    f"give its class another name in {path}"
                )
            label_of[name] = label
        return {label: name for name, label in label_of.items()}
