"""A section of the report: one protocol in one setting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from reporting.catalogue import family
from reporting.methods import Method
from reporting.paired import Comparison
from reporting.run import Run
from reporting.tables import Table


@dataclass(frozen=True)
class Setting:
    """What all runs of a section have in common."""

    family: str
    backbone: str
    split: str
    shots: int | None = None  # None: several
    source: str = ""

    @classmethod
    def of(cls, run: Run, shots: int | None = None, source: str = "") -> Setting:
        return cls(family(run.dataset), run.backbone, run.split, shots, source)

    @property
    def title(self) -> str:
        parts = [f"from {self.source}" if self.source else "", self.family, self.backbone]
        if self.shots:
            parts.append(shots_title(self.shots))
        if self.split != "test":
            parts.append(f"{self.split} images")
        return ", ".join(filter(None, parts))


@dataclass(frozen=True, eq=False)
class Section:
    """``tables`` begins with the average over data sets, if there are several."""

    protocol: str
    setting: Setting
    tables: Sequence[Table]
    comparisons: Sequence[Comparison]
    methods: Mapping[Run, Method]
    notes: Sequence[str]

    @property
    def title(self) -> str:
        return f"{self.protocol}: {self.setting.title}"

    @property
    def measures(self) -> list[str]:
        """What comparisons are of."""
        found = {key for comparison in self.comparisons for key in comparison.differences}
        columns = list(self.tables[0].columns)
        return sorted(found, key=lambda key: columns.index(key) if key in columns else 0)

    @property
    def leading_comparisons(self) -> list[Comparison]:
        """One of each two methods: on the average, or on the only data set that both ran on."""
        pairs = {(c.first, c.second): c for c in reversed(self.comparisons)}
        return list(pairs.values())[::-1]

    @property
    def other_comparisons(self) -> list[Comparison]:
        """Those on a single data set of several."""
        leading = set(map(id, self.leading_comparisons))
        return [c for c in self.comparisons if id(c) not in leading]


def shots_title(shots: int) -> str:
    return "all images" if shots < 0 else f"{shots} shot{'' if shots == 1 else 's'}"


def group(runs: Sequence[Run], setting: Callable[[Run], Setting]) -> dict[Setting, list[Run]]:
    """Sort runs by setting; zero-shot CLIP, which has no shots, joins all others that fit."""
    groups: dict[Setting, list[Run]] = defaultdict(list)
    for run in runs:
        if not run.zero_shot:
            groups[setting(run)].append(run)
    trained = list(groups)
    for run in runs:
        if run.zero_shot:
            own = setting(run)
            fitting = [other for other in trained if replace(other, shots=own.shots) == own]
            for other in fitting or [own]:
                groups[other].append(run)
    return dict(groups)


def stored_bytes(methods: Mapping[Run, Method]) -> dict[Method, int]:
    """The size of each method's stored prompt, the largest where class names change it."""
    sizes: dict[Method, list[int]] = defaultdict(list)
    for run, method in methods.items():
        if run.stored_bytes is not None:
            sizes[method].append(run.stored_bytes)
    return {method: max(found) for method, found in sizes.items()}
