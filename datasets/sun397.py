"""SUN397: scenes of 397 categories (Xiao et al., 2010)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .annotations import matching_lines
from .base import SplitDataset
from .items import hold_out_val, items_of_list
from .splits import Splits


@DATASET_REGISTRY.register()
class SUN397(SplitDataset):
    """``ROOT/sun397/SUN397/<letter>/<class>/*.jpg`` with its split file or the official lists."""

    dataset_dir = "sun397"
    image_dir = "SUN397"
    split_file = "split_zhou_SUN397.json"
    published_sizes = (15880, 3970, 19850)
    template = "a photo of a {}."

    def read(self) -> Splits:
        folders = matching_lines(self.path("ClassName.txt"), "/(.+)")
        classnames = {folder: scene_name(folder) for (folder,) in folders}

        def items(name: str) -> list[Datum]:
            path = self.path(name)
            entries = matching_lines(path, "/((.+)/.+)")
            return items_of_list(self.image_dir, entries, classnames, path)

        return Splits(*hold_out_val(items("Training_01.txt")), items("Testing_01.txt"))


def scene_name(folder: str) -> str:
    """Turn "a/apartment_building/outdoor" into "outdoor apartment_building"."""
    return " ".join(reversed(folder.split("/")[1:]))
