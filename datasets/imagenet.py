"""ImageNet: photos of 1,000 classes (Deng et al., 2009)."""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY, Datum

from .base import SplitDataset
from .fewshot import few_shot
from .items import items_of_folders
from .lists import pick
from .pickled import read_pickled_items
from .splits import DatasetNotFoundError, Splits
from .upstream import ImageNetFunctions


@DATASET_REGISTRY.register()
class ImageNet(ImageNetFunctions, SplitDataset):
    """``ROOT/imagenet/images/{train,val}/<WordNet id>/*.JPEG`` with ``classnames.txt``.

    The official validation images are the test images and, as in CoOp, also the validation images:
    shots are drawn from the training images alone. Labels follow the sorted WordNet ids; two
    classes may have one name. The shots of CoOp's ``split_fewshot/shot_<n>-seed_<s>.pkl`` and
    ``preprocessed.pkl`` are taken where these files are.
    """

    dataset_dir = "imagenet"
    image_dir = "images"
    published_sizes = (1281167, 50000, 50000)
    template = "a photo of a {}."

    def find(self) -> Splits:
        self.check_folder()
        classnames = read_classnames(self)
        train, test = (
            items_of_folders(os.path.join(self.image_dir, part), classnames)
            for part in ("train", "val")
        )
        return Splits(train, test, test)

    def draw(self, splits: Splits, shots: int, seed: int) -> Splits:
        """Draw shots, or take those that CoOp has drawn, or draw from its list as CoOp does.

        CoOp lists a folder in the order of the file system, which decides what a seed draws.
        """
        drawn = self.path("split_fewshot", f"shot_{shots}-seed_{seed}.pkl")
        if shots > 0 and os.path.isfile(drawn):
            return splits._replace(train=self._pickled(drawn, splits))
        listed = self.path("preprocessed.pkl")
        if shots > 0 and os.path.isfile(listed):
            splits = splits._replace(train=self._pickled(listed, splits))
        return splits._replace(train=few_shot(splits.train, [], shots, seed)[0])

    def _pickled(self, path: str, splits: Splits) -> list[Datum]:
        """Return the training images that a file of CoOp's names, wherever they lay there."""
        self.notes.append(f"shots are those of {path}")
        wanted = [
            (os.path.join(self.image_dir, *there.replace("\\", "/").split("/")[-3:]), classname)
            for there, classname in read_pickled_items(path)
        ]
        return pick(splits.train, wanted, path)


def read_classnames(dataset: SplitDataset) -> dict[str, str]:
    """Return the class name of each WordNet id, sorted by id: ImageNet's order of labels.

    The file is ``classnames.txt`` in the folder of the data set, else in ImageNet's.

    Raises:
        DatasetNotFoundError: there is no such file.
        SplitError: a line is not "<WordNet id> <class name>".
    """
    places = [dataset.path("classnames.txt"), os.path.join(dataset.root, "imagenet/classnames.txt")]
    path = next(filter(os.path.isfile, places), None)
    if path is None:
        raise DatasetNotFoundError(
            f"{places[-1]} is missing: the names of ImageNet's classes, a line for each with "
            "WordNet id and name. Take CoOp's file, since names are part of the prompts; "
            "docs/datasets.md says where it is"
        )
    return ImageNetFunctions.read_classnames(path)
