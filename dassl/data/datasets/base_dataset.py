"""What a data set is: items with labels, in splits."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from dassl.utils import UserError, check_choice, is_utf8


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

    def __setstate__(self, state: Any) -> None:
        """Unpickle, from files of shots that Dassl's own class was pickled into, too."""
        for name, value in (state[1] if isinstance(state, tuple) else state).items():
            setattr(self, name.removeprefix("_"), value)


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
        named_by_root: whether another DATASET.ROOT is another data set.
        template: the prompt that is written by hand, with "{}" for the class name.
        templates: several of them, ``template`` first.
        notes: sentences about the images for the log and results.json, such as another split than
            the published one.

    Raises:
        UserError: a label has two names or one that is not UTF-8, or a label between 0 and the
            largest has none.
    """

    dataset_dir = ""
    evaluation_only = False
    named_by_root = False
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

    # ---- what data sets written for Dassl call while they are built

    def get_num_classes(self, data_source: Iterable[Datum]) -> int:
        """Return the largest label plus 1."""
        return max(item.label for item in data_source) + 1

    def get_lab2cname(self, data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Return label -> class name, and the class names ordered by label."""
        names = {item.label: item.classname for item in data_source}
        return names, [names[label] for label in sorted(names)]

    def check_input_domains(self, source: Iterable[str], target: Iterable[str]) -> None:
        """Raise UnknownNameError unless all domains are among ``self.domains``."""
        for domain in (*source, *target):
            check_choice("domain", domain, self.domains)

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Raise a UserError that says what to fetch and where to put it: nothing is fetched here.

        Args:
            url: address of an archive.
            dst: path that it was to have.
            from_gdrive: not used.
        """
        raise UserError(
            f"{type(self).__name__} is not there yet: fetch {url} and unpack it in "
            f"{os.path.dirname(dst)}"
        )

    def generate_fewshot_dataset(
        self, *data_sources: Sequence[Datum], num_shots: int = -1, repeat: bool = False
    ) -> Any:
        """Draw ``num_shots`` items of each class, in order of first appearance.

        The numbers come from the module ``random``, so that the seed of the run decides.

        Args:
            data_sources: lists of items.
            num_shots: less than 1: all.
            repeat: draw items of too small a class several times, instead of each once.

        Returns:
            A list for each source, or the list of the only one.
        """
        drawn = [list(source) for source in data_sources]
        if num_shots >= 1:
            print(f"Creating a {num_shots}-shot dataset")
            drawn = [
                [
                    item
                    for own in self.split_dataset_by_label(source).values()
                    for item in _draw(own, num_shots, repeat)
                ]
                for source in data_sources
            ]
        return drawn[0] if len(drawn) == 1 else drawn

    def split_dataset_by_label(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Return the items of each label, in order of first appearance."""
        return _group(data_source, "label")

    def split_dataset_by_domain(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Return the items of each domain, in order of first appearance."""
        return _group(data_source, "domain")


def _group(items: Iterable[Datum], attribute: str) -> dict[int, list[Datum]]:
    groups: dict[int, list[Datum]] = {}
    for item in items:
        groups.setdefault(getattr(item, attribute), []).append(item)
    return groups


def _draw(items: list[Datum], number: int, repeat: bool) -> list[Datum]:
    if len(items) >= number:
        return random.sample(items, number)
    return random.choices(items, k=number) if repeat else items
