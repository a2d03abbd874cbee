"""Few-shot learning: trained and tested on all classes of a data set, at several shots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reporting.methods import assign, differences
from reporting.paired import compare
from reporting.run import Run
from reporting.scores import collect, summarise
from reporting.section import Section, Setting, group, shots_title, stored_bytes
from reporting.tables import averaged, tables_by_dataset

PROTOCOL = "Few-shot"


def belongs(run: Run) -> bool:
    """Trained on all classes of the data set that it is tested on, or not trained at all."""
    training = run.training
    return run.subset == training.subset == "all" and training.dataset == run.dataset


def sections(runs: Iterable[Run]) -> list[Section]:
    """One for each family of data sets and backbone.

    Zero-shot CLIP, at 0 shots, is shown on those data sets that something was trained on.
    """
    groups = group(list(filter(belongs, runs)), Setting.of)
    return [_section(setting, _beside_trained(members)) for setting, members in groups.items()]


def _beside_trained(runs: Sequence[Run]) -> list[Run]:
    trained = {run.dataset for run in runs if not run.zero_shot}
    return [run for run in runs if run.dataset in trained or not trained]


def _section(setting: Setting, runs: Sequence[Run]) -> Section:
    methods = assign(runs)
    scores = collect(methods, lambda run: shots_title(run.training.shots))
    shots = sorted({run.training.shots for run in runs}, key=lambda n: (n < 0, n))
    tables = tables_by_dataset(
        scores, list(map(shots_title, shots)), stored_bytes(methods), summarise
    )
    return Section(
        PROTOCOL,
        setting,
        tables,
        list(compare(scores, averaged(scores))),
        methods,
        differences(methods),
    )
