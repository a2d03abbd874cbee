"""Folder: any directory of class folders."""

from __future__ import annotations

import os
import reprlib
import warnings
from itertools import chain

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .base import SplitDataset
from .items import class_folders, items_of_folders, split_items
from .splits import SplitError, Splits, check_classes, read_valid_json


@DATASET_REGISTRY.register()
class Folder(SplitDataset):
    """Either ``ROOT/<class>/*``, split once and saved as ``ROOT/split.json``, or
    ``ROOT/train/<class>/*``, ``ROOT/test/<class>/*`` and, if it is there, ``ROOT/val/<class>/*``.

    Class names are the folders' names with spaces for underscores, or what
    ``ROOT/classnames.json`` ({folder: class name}) says instead.
    """

    split_file = "split.json"

    def load(self) -> Splits:
        parts = [part for part in Splits._fields if self._folders(part)]
        if parts:
            return self._load_parts(parts)
        found = super().load()
        in_split = {item.classname for item in found.train}
        differing = sorted(in_split ^ set(self._classnames("").values()))[:5]
        if differing:
            raise SplitError(
                f"{self.split_path} and the class folders disagree about {differing}; delete the "
                "file to have the split made again"
            )
        present = items_of_folders(self.image_dir, self._classnames(""))
        added = len({item.impath for item in present} - {i.impath for i in chain(*found)})
        if added:
            warnings.warn(
                f"{added} images are not in {self.split_path} and not used; delete the file to "
                "have the split made again",
                stacklevel=4,
            )
        return found

    def read(self) -> Splits:
        return split_items(items_of_folders(self.image_dir, self._classnames("")))

    def _load_parts(self, parts: list[str]) -> Splits:
        others = sorted(set(self._folders("")) - set(Splits._fields))
        if others:
            raise SplitError(
                f"{self.image_dir} holds {', '.join(parts)} and also {', '.join(others[:5])}; the "
                f"parts are called {', '.join(Splits._fields)}: rename or move the others"
            )
        names = self._classnames(*parts)

        def items(part: str) -> list[Datum]:
            return items_of_folders(os.path.join(self.image_dir, part), names)

        found = Splits(items("train"), items("val") if "val" in parts else [], items("test"))
        check_classes(found, self.image_dir)
        return found

    def _folders(self, part: str) -> list[str]:
        return class_folders(os.path.join(self.image_dir, part))

    def _classnames(self, *parts: str) -> dict[str, str]:
        folders = sorted(set().union(*map(self._folders, parts)))
        path = os.path.join(self.dataset_dir, "classnames.json")
        given = read_valid_json(path) if os.path.isfile(path) else {}
        if not isinstance(given, dict) or not given.keys() <= set(folders):
            some = reprlib.repr(folders)
            raise SplitError(f"{path} must map class folders to names; the folders are {some}")
        return {folder: str(given.get(folder, folder.replace("_", " "))) for folder in folders}
