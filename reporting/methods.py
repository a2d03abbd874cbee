"""Which runs are one method: same trainer, bits and training configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

_ABSENT = "?"
_SAME = ["trainer", "bits", "variant", "from_log"]
_LEARNERS = (  # in order of appearance
    "CoOp",
    "DePT",
    "CLIPAdapter",
    "TipAdapter",
    "TipAdapterF",
    "CoCoOp",
    "ProGrad",
    "VPT",
    "IVLP",
    "MaPLe",
    "KgCoOp",
    "PromptSRC",
)


@dataclass(frozen=True)
class Method:
    """A row of a table.

    ``variant`` is the name that a sweep gave to its settings, ``settings`` states those that tell
    it from its like.
    """

    trainer: str
    bits: int | None = None
    variant: str = ""
    settings: str = ""
    from_log: bool = False
    zero_shot: bool = False
    source: str = ""  # of published numbers

    @property
    def name(self) -> str:
        marks = [
            self.variant,
            self.settings,
            "log" * self.from_log,
            "published" * bool(self.source),
        ]
        marks = [mark for mark in marks if mark]
        return f"{self.trainer} ({', '.join(marks)})" if marks else self.trainer

    @property
    def label(self) -> str:
        """Name and bits."""
        return f"{self.name}, {self.bits} bit{'s' * (self.bits > 1)}" if self.bits else self.name

    @property
    def plain(self) -> str:
        """The trainer, or that which it quantizes."""
        return self.trainer.removeprefix("Q") if self.bits else self.trainer

    def quantizes(self, other: Method) -> bool:
        """Whether the other is the plain trainer that this one quantizes, or adds noise to.

        One of its own variant, or of none.
        """
        plain = (f"Q{other.trainer}", None, other.from_log)
        alike = (self.trainer, other.bits, self.from_log) == plain
        return alike and other.variant in ("", self.variant)

    @property
    def order(self) -> tuple[Any, ...]:
        """Zero-shot first, plain trainers before what quantizes them, published numbers last."""
        known = self.plain in _LEARNERS
        learner = _LEARNERS.index(self.plain) if known else len(_LEARNERS)
        rank = (bool(self.source), not self.zero_shot, learner, self.plain, self.bits or 0)
        names = (_natural(self.variant), _natural(self.settings))
        return (*rank, self.trainer, *names, self.from_log)

    def __lt__(self, other: Method) -> bool:
        return self.order < other.order


def _natural(text: str) -> tuple[str | float, ...]:
    """Texts and numbers in turn, so that 9 comes before 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple(float(part) if i % 2 else part for i, part in enumerate(parts))


def assign(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the column "method".

    Runs of one trainer and variant become several methods if, on the same data and shots, they
    differ in a setting; the method's name states it. A key that only one of two runs knows does not
    count.
    """
    methods = {}
    for _, alike in runs.groupby(_SAME, dropna=False):
        chosen = _settings(alike)
        differing = chosen.groupby([alike.dataset, alike.subset, alike.shots]).nunique().gt(1).any()
        keys = sorted(chosen.columns[differing])
        for run in alike.itertuples():
            settings = ", ".join(f"{key}={run.settings.get(key, _ABSENT)}" for key in keys)
            bits = None if pd.isna(run.bits) else int(run.bits)
            methods[run.Index] = Method(
                run.trainer, bits, run.variant, settings, run.from_log, run.zero_shot
            )
    return runs.assign(method=pd.Series(methods, dtype=object))


def differing_settings(runs: pd.DataFrame) -> list[str]:
    """Say which settings of a method are not the same for all its data sets and shots."""
    notes = []
    for method, alike in runs.groupby("method"):
        chosen = _settings(alike)
        differing = [
            f"{key} ({', '.join(sorted(map(str, values.dropna().unique())))})"
            for key, values in chosen[sorted(chosen)].items()
            if values.nunique() > 1
        ]
        if differing:
            notes.append(
                f"{method.label} was not trained alike for all data sets and shots: it differs in "
                f"{'; '.join(differing)}."
            )
    return notes


def _settings(runs: pd.DataFrame) -> pd.DataFrame:
    """A column for each key; what a run does not know is missing."""
    return pd.DataFrame(list(runs.settings), runs.index, dtype=object)
