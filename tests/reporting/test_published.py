"""The papers' numbers: copied without slips, and shown only where they can be compared."""

from statistics import fmean

import pytest

from reporting.catalogue import BENCHMARK
from reporting.protocols import published_halves, published_numbers
from reporting.report import make_report


@pytest.mark.parametrize("method", ["CLIP", "CoOp", "CoCoOp", "MaPLe", "KgCoOp", "PromptSRC"])
@pytest.mark.parametrize("half", ["base", "new"])
def test_numbers_of_the_data_sets_average_to_the_published_average(method, half):
    cells = {
        dataset: {method.trainer: mean for (_, method), mean in means.items()}
        for dataset, means in published_numbers("base_to_new")[half].groupby("dataset")
    }
    assert cells.keys() == {*BENCHMARK, "average"}
    average = cells.pop("average")[method]
    mean = fmean(found[method] for found in cells.values())
    assert mean == pytest.approx(average, abs=0.01)  # both are rounded


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


def test_harmonic_means_of_kgcoop_are_those_that_others_quote():
    """In the order of BENCHMARK, from the README of DMC, which compares with it."""
    quoted = [72.78, 96.03, 96.18, 73.36, 83.65, 91.10, 34.83, 78.36, 64.35, 73.48, 79.66]
    h = published_halves()["H"]
    found = [mean for (dataset, method), mean in h.items() if method.trainer == "KgCoOp"]
    assert found[:-1] == pytest.approx(quoted, abs=0.0051)


def test_every_number_has_a_source():
    for name in ("base_to_new", "cross_dataset", "few_shot"):
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
        "DePT",
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


def test_few_shot_averages_are_shown_for_the_shots_that_were_run(runs):
    for shots in (1, 16):
        runs.trained("TipAdapterF", "EuroSAT", 70.0, shots=shots)
    average, _ = make_report(runs.root).sections[0].tables
    means = {m.name: list(row) for m, row in average.cells["mean"].iterrows() if m.source}
    assert average.columns == ["1 shot", "16 shots"] and len(means) == 8
    assert means["TipAdapterF (published)"] == [70.62, 81.15]


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
