"""What a data set is: items with labels, in splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from dassl.utils import UserError


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
        template: the prompt that is written by hand, with "{}" for the class name.
        templates: several of them, ``template`` first.
        notes: sentences about the images for the log and results.json, such as another split than
            the published one.

    Raises:
        UserError: a label has two names, or a label between 0 and the largest has none.
    """

    dataset_dir = ""
    evaluation_only = False
    domains: Sequence[str] = []
    template = "a photo of a {}."
    notes: Sequence[str] = ()

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
        self.use_templates(self.template)

    def use_templates(self, templates: str | Sequence[str]) -> None:
        """Take other prompts than those of the data set.

        Raises:
            UserError: there is none, or one has not exactly one "{}".
        """
        self.templates = (templates,) if isinstance(templates, str) else tuple(templates)
        for text in self.templates:
            if not isinstance(text, str) or re.sub("[^{}]", "", text) != "{}" or "{}" not in text:
                raise UserError(
                    f"{text!r} is no template: DATASET.TEMPLATE is a text, or a list of texts, "
                    'with "{}" where the class name goes'
                )
        if not self.templates:
            raise UserError("DATASET.TEMPLATE is an empty list: give a text, or leave it out")
        self.template = self.templates[0]

    def _label_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for item in chain(self.train_x or (), self.val or (), self.test or ()):
            if names.setdefault(item.label, item.classname) != item.classname:
                raise UserError(
                    f'Label {item.label} is called both "{names[item.label]}" and '
                    f'"{item.classname}" (at "{item.impath}")'
                )
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
