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
        dataset: {method.trainer: mean for (_, method), mean in means.items()}
        for dataset, means in published_numbers("base_to_new")[half].groupby("dataset")
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
    found = {m.trainer: h for m, h in published_halves().loc["average", "H"].items()}
    assert found[method] == pytest.approx(h, abs=0.0051)


def test_every_number_has_a_source():
    for name in ("base_to_new", "cross_dataset"):
        methods = published_numbers(name).index.get_level_values("method")
        assert all(method.source for method in methods)


def shown(runs):
    return {
        method.trainer
        for section in make_report(runs.root).sections
        for table in section.tables
        for method in table.cells.index
        if method.source
    }


def test_shown_beside_the_same_setting_and_never_the_best_of_an_average_with_gaps(runs):
    runs.base_to_new("CoOp", "EuroSAT", 99.9, 99.9)
    (section,) = make_report(runs.root).sections
    average, eurosat = section.tables
    names = [
        "CLIP",
        "CoOp",
        "QCoOp",
        "CoCoOp",
        "ProGrad",
        "IVLP",
        "MaPLe",
        "QMaPLe",
        "KgCoOp",
        "PromptSRC",
    ]
    assert [method.trainer for method in average.cells.index if method.source] == names
    assert {m.name for m, best in average.best["H"].items() if best} == {"PromptSRC (published)"}
    assert {m.name for m, best in eurosat.best["H"].items() if best} == {"CoOp"}


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
