"""EuroSAT: Sentinel-2 satellite images of 10 kinds of land use (Helber et al., 2019)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .base import SplitDataset
from .items import items_of_folders, split_items
from .splits import Splits

CLASSNAMES = {
    "AnnualCrop": "Annual Crop Land",
    "Forest": "Forest",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "River": "River",
    "SeaLake": "Sea or Lake",
}


@DATASET_REGISTRY.register()
class EuroSAT(SplitDataset):
    """``ROOT/eurosat/2750/<class>/*.jpg`` with ``split_zhou_EuroSAT.json``."""

    dataset_dir = "eurosat"
    image_dir = "2750"
    split_file = "split_zhou_EuroSAT.json"
    published_sizes = (13500, 5400, 8100)
    template = "a centered satellite photo of {}."

    def read(self) -> Splits:
        return split_items(items_of_folders(self.image_dir, CLASSNAMES))
