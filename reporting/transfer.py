"""Cross-dataset transfer and domain generalization: trained on one data set, tested on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reporting import few_shot, published
from reporting.catalogue import BENCHMARK, DOMAINS, REAL, family, in_order
from reporting.methods import Method, assign, differences, settings
from reporting.paired import compare
from reporting.run import Run
from reporting.scores import AVERAGE, Cell, collect, datasets_of, summarise
from reporting.section import Section, Setting, group, stored_bytes
from reporting.tables import make_table

CROSS_DATASET, DOMAIN_GENERALIZATION = "Cross-dataset", "Domain generalization"
ACCURACY = "accuracy"


def belongs(run: Run) -> bool:
    """Trained on all classes of one data set, tested on all classes of another."""
    training = run.training
    return run.subset == training.subset == "all" and training.dataset != run.dataset


def sections(runs: Sequence[Run]) -> list[Section]:
    """One for each protocol, source, family of the targets, backbone and number of shots."""
    transfers = list(filter(belongs, runs))
    at_home = list(filter(few_shot.belongs, runs))
    found = []
    for protocol in (CROSS_DATASET, DOMAIN_GENERALIZATION):
        members = [run for run in transfers if protocol_of(run) == protocol]
        groups = group(
            members, lambda r: Setting.of(r, shots=r.training.shots, source=r.training.dataset)
        )
        for setting, moved in groups.items():
            beside = [run for run in at_home if _stands_beside(run, moved, setting)]
            found.append(_section(protocol, setting, [*moved, *beside]))
    return found


def protocol_of(run: Run) -> str:
    """Domain generalization if the target shows the source's classes under a shift."""
    shifted = run.dataset in DOMAINS.get(run.training.dataset, ())
    return DOMAIN_GENERALIZATION if shifted else CROSS_DATASET


def _stands_beside(run: Run, moved: Sequence[Run], setting: Setting) -> bool:
    """Zero-shot CLIP on the same data sets, and the methods' own results on the source."""
    own = Setting.of(run, shots=run.training.shots, source=setting.source)
    if run.zero_shot:
        targets = {other.dataset for other in moved}
        return own == replace(setting, shots=0) and run.dataset in {setting.source, *targets}
    return (
        own == setting
        and run.dataset == setting.source
        and any(
            (run.trainer, run.bits, run.from_log, settings(run))
            == (other.trainer, other.bits, other.from_log, settings(other))
            for other in moved
        )
    )


def _section(protocol: str, setting: Setting, runs: Sequence[Run]) -> Section:
    methods = assign(runs)
    scores = collect(methods, lambda run: ACCURACY)
    targets = in_order(datasets_of(scores) - {setting.source})
    if protocol == DOMAIN_GENERALIZATION:
        of = len(DOMAINS[setting.source])
    elif (setting.source, setting.family) == (published.SOURCE, REAL):
        of = len(BENCHMARK) - 1
    else:
        of = len(targets)
    cells = {}
    for method, found in scores.items():
        row = {dataset: summarise([measures])[ACCURACY] for dataset, measures in found.items()}
        parts = [found[target] for target in targets if target in found]
        if parts and of > 1:
            row[AVERAGE] = summarise(parts, of)[ACCURACY]
        cells[method] = row
    if published.comparable(setting):
        cells |= _published(protocol)
    home = [setting.source] if family(setting.source) == setting.family else []
    columns = [*home, *targets, *([AVERAGE] if of > 1 else [])]
    table = make_table(f"Trained on {setting.source}", columns, cells, stored_bytes(methods))
    comparisons = list(compare(scores, targets))
    return Section(protocol, setting, [table], comparisons, methods, differences(methods))


def _published(protocol: str) -> dict[Method, dict[str, Cell]]:
    found = {}
    for method, cells in published.read("cross_dataset")[""].items():
        mean = cells.pop("cross_dataset_mean")
        if protocol == DOMAIN_GENERALIZATION:
            targets = [cells[target] for target in DOMAINS[published.SOURCE]]
            mean = Cell(sum(cell.mean for cell in targets) / len(targets))
        found[method] = {**cells, AVERAGE: mean}
    return found
