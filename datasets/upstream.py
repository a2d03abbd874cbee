"""Functions that data-set files of other repositories call on three classes of upstream's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dassl.data.datasets import Datum

from .annotations import matching_lines
from .fewshot import subsample_classes
from .items import VAL_SHARE, class_folders, hold_out_val, items_of_folders, split_items
from .splits import Splits, read_split, write_split

CLASSNAMES_LINE = r"(n\d{8}) (.+)"


class OxfordPetsFunctions:
    """Those of ``OxfordPets``."""

    @staticmethod
    def read_split(filepath: str, path_prefix: str) -> Splits:
        """Read a split file; ``path_prefix``: the folder of its images."""
        return read_split(filepath, path_prefix)

    @staticmethod
    def save_split(
        train: list[Datum], val: list[Datum], test: list[Datum], filepath: str, path_prefix: str
    ) -> None:
        """Write a split file, which must not exist."""
        write_split(filepath, Splits(train, val, test), path_prefix)

    @staticmethod
    def split_trainval(
        trainval: Sequence[Datum], p_val: float = VAL_SHARE
    ) -> tuple[list[Datum], list[Datum]]:
        """Split the items of each class into train and val; the same whenever it is called."""
        return hold_out_val(trainval, p_val)

    @staticmethod
    def subsample_classes(*args: Sequence[Datum], subsample: str = "all") -> list[list[Datum]]:
        """Keep all, the base or the new classes of some lists of items, relabelled."""
        return subsample_classes(args, subsample)


class TexturesFunctions:
    """Those of ``DescribableTextures``."""

    @staticmethod
    def read_and_split_data(
        image_dir: str,
        p_trn: float = 0.5,
        p_val: float = 0.2,
        ignored: Collection[str] = (),
        new_cnames: Mapping[str, str] | None = None,
    ) -> Splits:
        """Split the images of each class folder at random; the same whenever it is called.

        Args:
            image_dir: holds the class folders, whose sorted names give the labels.
            p_trn, p_val: shares of train and val; the rest is test.
            ignored: folders that are no class.
            new_cnames: names of classes in place of those of their folders.
        """
        names = [name for name in class_folders(image_dir) if name not in ignored]
        classnames = {name: (new_cnames or {}).get(name, name) for name in names}
        return split_items(items_of_folders(image_dir, classnames), p_trn, p_val)


class ImageNetFunctions:
    """Those of ``ImageNet``."""

    @staticmethod
    def read_classnames(text_file: str) -> dict[str, str]:
        """Return the class name of each WordNet id, sorted by id: ImageNet's order of labels.

        Raises:
            SplitError: a line is not "<WordNet id> <class name>".
        """
        return dict(sorted(matching_lines(text_file, CLASSNAMES_LINE)))
