"""StanfordCars: cars of 196 makes, models and years (Krause et al., 2013)."""

from __future__ import annotations

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .annotations import mat_records, mat_variable
from .base import SplitDataset
from .items import hold_out_val, items_of_list
from .splits import Splits


@DATASET_REGISTRY.register()
class StanfordCars(SplitDataset):
    """``ROOT/stanford_cars/cars_{train,test}/*.jpg`` with its split file or the .mat files."""

    dataset_dir = "stanford_cars"
    split_file = "split_zhou_StanfordCars.json"
    published_sizes = (6509, 1635, 8041)
    template = "a photo of a {}."

    def read(self) -> Splits:
        names = mat_variable(self.path("devkit", "cars_meta.mat"), "class_names")
        classnames = {number: year_first(name) for number, name in enumerate(names, 1)}

        def items(folder: str, *annotations: str) -> list[Datum]:
            path = self.path(*annotations)
            records = mat_records(path, "annotations", "fname", "class")
            entries = [(f"{folder}/{name}", number) for name, number in records]
            return items_of_list(self.dataset_dir, entries, classnames, path)

        trainval = items("cars_train", "devkit", "cars_train_annos.mat")
        test = items("cars_test", "cars_test_annos_withlabels.mat")
        return Splits(*hold_out_val(trainval), test)


def year_first(name: str) -> str:
    """Turn "Audi TTS Coupe 2012" into "2012 Audi TTS Coupe"."""
    model, _, year = name.rpartition(" ")
    return f"{year} {model}"
