"""DescribableTextures: textures of 47 kinds (Cimpoi et al., 2014)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .annotations import matching_lines
from .base import SplitDataset
from .items import class_folders, items_of_list
from .splits import Splits
from .upstream import TexturesFunctions


@DATASET_REGISTRY.register()
class DescribableTextures(TexturesFunctions, SplitDataset):
    """``ROOT/dtd/images/<class>/*.jpg`` with its split file or ``labels/{train,val,test}1.txt``."""

    dataset_dir = "dtd"
    image_dir = "images"
    split_file = "split_zhou_DescribableTextures.json"
    published_sizes = (2820, 1128, 1692)
    template = "{} texture."

    def read(self) -> Splits:
        classnames = {name: name for name in class_folders(self.image_dir)}

        def items(part: str) -> list[Datum]:
            path = self.path("labels", f"{part}1.txt")
            entries = matching_lines(path, "((.+)/.+)")
            return items_of_list(self.image_dir, entries, classnames, path)

        return Splits(*map(items, Splits._fields))
