"""FGVCAircraft: aircraft of 100 variants (Maji et al., 2013)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .annotations import matching_lines
from .base import SplitDataset
from .items import items_of_list
from .splits import Splits


@DATASET_REGISTRY.register()
class FGVCAircraft(SplitDataset):
    """``ROOT/fgvc_aircraft/images/*.jpg`` with ``images_variant_{train,val,test}.txt``."""

    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    published_sizes = (3334, 3333, 3333)
    template = "a photo of a {}, a type of aircraft."

    def read(self) -> Splits:
        classnames = {name: name for (name,) in matching_lines(self.path("variants.txt"), "(.+)")}

        def items(part: str) -> list[Datum]:
            path = self.path(f"images_variant_{part}.txt")
            entries = [(f"{i}.jpg", name) for i, name in matching_lines(path, r"(\d+) (.+)")]
            return items_of_list(self.image_dir, entries, classnames, path)

        return Splits(*map(items, Splits._fields))
