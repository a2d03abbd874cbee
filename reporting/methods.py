"""Which runs are one method: same trainer, bits and training configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reporting.results import Config, Run

# what names the run, and on which device and by which version it was made
_NO_SETTINGS = {
    "MODEL.BACKBONE.NAME",
    "OUTPUT_DIR",
    "SEED",
    "TEST.SPLIT",
    "TRAINER.NAME",
    "TRAINER.QPROMPT.BITS",
    "USE_CUDA",
    "VERSION",
}
_QUANTIZER = "TRAINER.QPROMPT."
_ABSENT = "?"
_LEARNERS = ("CoOp", "CoCoOp", "ProGrad", "MaPLe", "PromptSRC")  # in order of appearance


@dataclass(frozen=True)
class Method:
    """A row of a table. ``variant`` names the settings that tell it from its like."""

    trainer: str
    bits: int | None = None
    variant: str = ""
    from_log: bool = False
    zero_shot: bool = False
    source: str = ""  # of published numbers

    @property
    def name(self) -> str:
        marks = [self.variant, "log" * self.from_log, "published" * bool(self.source)]
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

    @property
    def order(self) -> tuple[Any, ...]:
        """Zero-shot first, plain trainers before what quantizes them, published numbers last."""
        known = self.plain in _LEARNERS
        learner = _LEARNERS.index(self.plain) if known else len(_LEARNERS)
        rank = (bool(self.source), not self.zero_shot, learner, self.plain, self.bits or 0)
        return (*rank, self.trainer, self.variant, self.from_log)


def settings(run: Run) -> dict[str, Hashable]:
    """What may make a difference: the training configuration without what the run's record excepts.

    The quantizer's keys are the run's own, because it may be attached after training.
    """
    chosen = {k: v for k, v in _training(run).items() if not k.startswith(_QUANTIZER)}
    if run.bits is not None:
        chosen |= {k: v for k, v in run.config.items() if k.startswith(_QUANTIZER)}
    no_settings = _NO_SETTINGS | run.irrelevant_settings
    return {
        key: _comparable(value, run)
        for key, value in chosen.items()
        if key not in no_settings and not key.startswith("DATASET.")
    }


def assign(runs: Sequence[Run]) -> dict[Run, Method]:
    """Name the method of each run.

    Runs of one trainer become several methods if, on the same data and shots, they differ in a
    setting; the method's name states it. A key that only one of two runs knows does not count.
    """
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.trainer, run.bits, run.from_log].append(run)
    methods = {}
    for (trainer, bits, from_log), members in groups.items():
        chosen = {run: settings(run) for run in members}
        keys = sorted(_differing(chosen))
        for run in members:
            variant = ", ".join(f"{key}={chosen[run].get(key, _ABSENT)}" for key in keys)
            methods[run] = Method(trainer, bits, variant, from_log, run.zero_shot)
    return methods


def differing_settings(methods: dict[Run, Method]) -> list[str]:
    """Say which settings of a method are not the same for all its data sets and shots."""
    members: dict[Method, list[Run]] = defaultdict(list)
    for run, method in methods.items():
        members[method].append(run)
    notes = []
    for method, runs in sorted(members.items(), key=lambda item: item[0].order):
        values = _values(settings(run) for run in runs)
        differing = [
            f"{key} ({', '.join(sorted(map(str, choices)))})"
            for key, choices in sorted(values.items())
            if len(choices) > 1
        ]
        if differing:
            notes.append(
                f"{method.label} was not trained alike for all data sets and shots: it differs in "
                f"{'; '.join(differing)}."
            )
    return notes


def _differing(chosen: dict[Run, dict[str, Hashable]]) -> set[str]:
    cells: dict[tuple[Any, ...], list[dict[str, Hashable]]] = defaultdict(list)
    for run, config in chosen.items():
        cells[run.dataset, run.subset, _shots(run)].append(config)
    return {key for cell in cells.values() for key, v in _values(cell).items() if len(v) > 1}


def _values(configs: Iterable[dict[str, Hashable]]) -> dict[str, set[Hashable]]:
    values: dict[str, set[Hashable]] = defaultdict(set)
    for config in configs:
        for key, value in config.items():
            values[key].add(value)
    return values


def _training(run: Run) -> Config:
    return run.training.config if run.training else run.config


def _shots(run: Run) -> int | None:
    return run.training.shots if run.training else None


def _comparable(value: Any, run: Run) -> Hashable:
    """Folders of weights usually hold the seed, which is no setting."""
    if isinstance(value, str) and run.training:
        return value.replace(f"seed{run.training.seed}", "seed")
    return value if isinstance(value, Hashable) else str(value)
