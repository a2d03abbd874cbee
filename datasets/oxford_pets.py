"""OxfordPets: cats and dogs of 37 breeds (Parkhi et al., 2012)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY

from .annotations import matching_lines
from .base import SplitDataset
from .items import hold_out_val, items_of_list
from .splits import Splits
from .upstream import OxfordPetsFunctions

LINE = r"((\S+)_\d+) (\d+) \d \d"  # image, in it the breed; class, species, class in its species


@DATASET_REGISTRY.register()
class OxfordPets(OxfordPetsFunctions, SplitDataset):
    """``ROOT/oxford_pets/images/*.jpg`` with its split file or ``annotations/*.txt``."""

    dataset_dir = "oxford_pets"
    image_dir = "images"
    split_file = "split_zhou_OxfordPets.json"
    published_sizes = (2944, 736, 3669)
    template = "a photo of a {}, a type of pet."

    def read(self) -> Splits:
        paths = [self.path("annotations", name) for name in ("trainval.txt", "test.txt")]
        parts = [matching_lines(path, LINE) for path in paths]
        breeds = {int(label): breed.lower() for part in parts for _, breed, label in part}
        trainval, test = (
            items_of_list(
                self.image_dir,
                [(f"{image}.jpg", int(label)) for image, _, label in part],
                dict(sorted(breeds.items())),
                path,
            )
            for path, part in zip(paths, parts, strict=True)
        )
        return Splits(*hold_out_val(trainval), test)
