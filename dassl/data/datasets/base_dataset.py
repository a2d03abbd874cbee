"""What a data set is: items with labels, in splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from dassl.utils import UserError, is_utf8


@dataclass(slots=True)
class Datum:
    """One image: where it lies and what it shows.

    Args:
        impath: path of the image file.
        label: class index from 0.
        domain: domain index from 0.
        classname: name of the class.
    """

    impath: str = ""
    label: int = 0
    domain: int = 0
    classname: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.impath, str):
            raise TypeError(f"impath must be a str, got {self.impath!r}")


class DatasetBase:
    """The splits of a data set, and the class names that its labels stand for.

    Args:
        train_x: labelled training items.
        train_u: unlabelled training items.
        val: validation items.
        test: test items.

    Attributes:
        train_x, train_u, val, test: the splits.
        lab2cname: label -> class name, ordered by label.
        evaluation_only: whether there are no images to train on.

    Raises:
        UserError: a label has two names or one that is not UTF-8, or a label between 0 and the
            largest has none.
    """

    dataset_dir = ""
    evaluation_only = False
    domains: Sequence[str] = []
    template = "a photo of a {}."

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ) -> None:
        self.train_x = train_x
        self.train_u = train_u
        self.val = val
        self.test = test
        self.lab2cname = self._label_names()

    def _label_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for item in chain(self.train_x or (), self.val or (), self.test or ()):
            if names.setdefault(item.label, item.classname) != item.classname:
                raise UserError(
                    f'Label {item.label} is called both "{names[item.label]}" and '
                    f'"{item.classname}" (at "{item.impath}")'
                )
        if unstorable := [name for name in names.values() if not is_utf8(name)]:
            raise UserError(f"The class name {unstorable[0]!a} is not UTF-8: rename its folder")
        if missing := set(range(max(names, default=-1) + 1)) - names.keys():
            raise UserError(
                f"Labels must count from 0 without gaps, but no item has {sorted(missing)[:10]}"
            )
        return dict(sorted(names.items()))

    @property
    def classnames(self) -> list[str]:
        """Class names ordered by label."""
        return list(self.lab2cname.values())

    @property
    def num_classes(self) -> int:
        return len(self.lab2cname)
