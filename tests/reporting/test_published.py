"""The papers' numbers: copied without slips, and shown only where they can be compared."""

from statistics import fmean

import pytest

from reporting.catalogue import BENCHMARK
from reporting.protocols import published_halves, published_numbers
from reporting.report import make_report


@pytest.mark.parametrize("method", ["CLIP", "CoOp", "CoCoOp", "MaPLe", "PromptSRC"])
@pytest.mark.parametrize("half", ["base", "new"])
def test_numbers_of_the_data_sets_average_to_the_published_average(method, half):
    cells = {
        dataset: {m.trainer: c[half].mean for m, c in found.items()}
        for dataset, found in published_numbers("base_to_new").items()
    }
    assert cells.keys() == {*BENCHMARK, "average"}
    average = cells.pop("average")[method]
    assert fmean(found[method] for found in cells.values()) == pytest.approx(average, abs=0.0051)


@pytest.mark.parametrize(
    ("method", "h"),
    [
        ("CLIP", 71.70),
        ("CoOp", 71.66),
        ("CoCoOp", 75.83),
        ("ProGrad", 75.00),
        ("QCoOp", 77.43),
        ("MaPLe", 78.55),
        ("QMaPLe", 79.12),
    ],
)
def test_harmonic_means_are_those_that_the_qprompt_paper_prints(method, h):
    found = {m.trainer: cells["H"].mean for m, cells in published_halves("average").items()}
    assert found[method] == pytest.approx(h, abs=0.0051)


def test_every_number_has_a_source():
    for name in ("base_to_new", "cross_dataset"):
        for found in published_numbers(name).values():
            assert all(method.source for method in found)


def shown(runs):
    return {
        row.method.trainer
        for section in make_report(runs.root).sections
        for table in section.tables
        for row in table.rows
        if row.method.source
    }


def test_shown_beside_the_same_setting_and_never_the_best_of_an_average_with_gaps(runs):
    runs.base_to_new("CoOp", "EuroSAT", 99.9, 99.9)
    (section,) = make_report(runs.root).sections
    average, eurosat = section.tables
    names = ["CLIP", "CoOp", "QCoOp", "CoCoOp", "ProGrad", "MaPLe", "QMaPLe", "PromptSRC"]
    assert [row.method.trainer for row in average.rows if row.method.source] == names
    assert {m.name for m in average.best("H")} == {"PromptSRC (published)"}
    assert {m.name for m in eurosat.best("H")} == {"CoOp"}


@pytest.mark.parametrize(
    ("dataset", "options"),
    [
        ("EuroSAT", {"backbone": "RN50"}),
        ("EuroSAT", {"shots": 4}),
        ("EuroSAT", {"split": "val"}),
        ("Digits", {}),
        ("MyData", {}),
    ],
)
def test_not_shown_beside_another_setting(runs, dataset, options):
    runs.base_to_new("CoOp", dataset, 90.0, 60.0, **options)
    assert not shown(runs)
