"""Base-to-new tables, checked against numbers worked out by hand."""

import math

import pandas as pd
import pytest

from reporting.protocols import with_harmonic_mean
from reporting.report import make_report
from reporting.scores import ConflictingResultsError


def rows(table):
    return {method.label: cells for method, cells in table.cells.iterrows()}


def test_means_deviations_and_the_harmonic_mean_of_the_means(runs):
    for seed, base, new in ((1, 80.0, 60.0), (2, 90.0, 50.0)):
        runs.base_to_new("CoOp", "Digits", base, new, seed=seed)
    (section,) = make_report(runs.root).sections
    (table,) = section.tables
    cells = rows(table)["CoOp"]
    assert (cells["mean", "base"], cells["mean", "new"]) == (85.0, 55.0)
    assert cells["std", "base"] == pytest.approx(50**0.5)
    assert cells["mean", "H"] == pytest.approx(2 * 85 * 55 / 140)
    hs = [2 * 80 * 60 / 140, 2 * 90 * 50 / 140]
    assert cells["std", "H"] == pytest.approx(abs(hs[0] - hs[1]) / 2**0.5)
    assert cells["seeds", "H"] == 2


def test_average_is_over_data_sets_and_its_h_of_the_averages(runs):
    # EuroSAT (90, 60), (92, 64); Caltech101 (98, 90), (96, 94)
    for seed, base, new in ((1, 90.0, 60.0), (2, 92.0, 64.0)):
        runs.base_to_new("CoOp", "EuroSAT", base, new, seed=seed, backbone="RN50")
    for seed, base, new in ((1, 98.0, 90.0), (2, 96.0, 94.0)):
        runs.base_to_new("CoOp", "Caltech101", base, new, seed=seed, backbone="RN50")
    (section,) = make_report(runs.root).sections
    average, caltech, eurosat = section.tables
    assert [caltech.title, eurosat.title] == ["Caltech101", "EuroSAT"]
    cells = rows(average)["CoOp"]
    assert (cells["mean", "base"], cells["mean", "new"]) == (94.0, 77.0)
    assert cells["mean", "H"] == pytest.approx(2 * 94 * 77 / 171)  # not the mean of two H
    assert cells["std", "base"] == pytest.approx(0.0)  # both seeds average to 94
    assert cells["std", "new"] == pytest.approx(abs(75 - 79) / 2**0.5)
    h = [2 * 94 * 75 / 169, 2 * 94 * 79 / 173]
    assert cells["std", "H"] == pytest.approx(abs(h[0] - h[1]) / 2**0.5)
    assert (cells["sets", "H"], cells["of", "H"]) == (2, 11)
    assert not average.best["H"].any()  # with gaps, nothing is best


def test_the_deviation_of_an_average_is_over_seeds_that_ran_everywhere(runs):
    runs.base_to_new("CoOp", "Digits", 90.0, 60.0, seed=1)
    runs.base_to_new("CoOp", "Digits", 92.0, 64.0, seed=2)
    runs.base_to_new("CoOp", "Characters", 80.0, 50.0, seed=1)
    cells = rows(make_report(runs.root).sections[0].tables[0])["CoOp"]
    assert (cells["mean", "base"], cells["seeds", "base"]) == (85.5, 1)
    assert math.isnan(cells["std", "base"])


def test_a_missing_half_is_a_gap(runs):
    runs.trained("CoOp", "Digits", 80.0, subset="base")
    (table,) = make_report(runs.root).sections[0].tables
    assert [*rows(table)["CoOp"]["mean"].dropna().index] == ["base"]


def test_unpaired_seeds_do_not_enter_the_means(runs):
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0, seed=1)
    runs.trained("CoOp", "Digits", 10.0, subset="base", seed=2)
    (table,) = make_report(runs.root).sections[0].tables
    cells = rows(table)["CoOp"]
    assert (cells["mean", "base"], cells["seeds", "base"]) == (80.0, 1)


def test_averages_prefer_data_sets_with_both_halves(runs):
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0)
    runs.trained("CoOp", "Characters", 10.0, subset="base")
    cells = rows(make_report(runs.root).sections[0].tables[0])["CoOp"]
    assert (cells["mean", "base"], cells["sets", "base"], cells["of", "base"]) == (80.0, 1, 2)


def test_real_data_and_stand_ins_never_share_a_section(runs):
    for dataset in ("EuroSAT", "Digits", "MyData"):
        runs.base_to_new("CoOp", dataset, 80.0, 60.0)
    sections = make_report(runs.root).sections
    assert [section.setting.family for section in sections] == [
        "embedded stand-ins",
        "benchmark data sets",
        "other data sets",
    ]


@pytest.mark.parametrize(
    "other", [{"shots": 4}, {"backbone": "RN50"}, {"split": "val"}], ids=lambda o: next(iter(o))
)
def test_other_settings_are_other_sections(runs, other):
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0)
    runs.base_to_new("CoOp", "Digits", 70.0, 60.0, **{"seed": 2, **other})
    sections = make_report(runs.root).sections
    assert sorted(s.tables[0].cells["mean", "base"].iloc[0] for s in sections) == [70.0, 80.0]
    assert len({section.title for section in sections}) == 2


def test_zero_shot_joins_every_number_of_shots(runs):
    runs.zero_shot("Digits", 50.0, subset="base")
    for shots in (4, 16):
        runs.base_to_new("CoOp", "Digits", 80.0, 60.0, shots=shots)
    for section in make_report(runs.root).sections:
        assert list(rows(section.tables[0])) == ["ZeroshotCLIP", "CoOp"]


def test_the_same_run_twice_counts_once_or_is_named(runs):
    origin, _ = runs.base_to_new("CoOp", "Digits", 80.0, 60.0)
    runs.tested(origin, "Digits", 80.0, subset="base")
    (table,) = make_report(runs.root).sections[0].tables
    assert rows(table)["CoOp"]["seeds", "base"] == 1
    runs.tested(origin, "Digits", 99.0, subset="base")
    with pytest.raises(ConflictingResultsError, match="two different results.*move one away"):
        make_report(runs.root)


def test_harmonic_mean_of_nothing_right_is_zero():
    halves = pd.DataFrame({"base": [0.0, 80.68], "new": [50.0, 74.44]})
    nothing, paper = with_harmonic_mean(halves)["H"]
    assert nothing == 0.0
    assert paper == pytest.approx(77.43, abs=0.005)  # the paper's QCoOp


def test_summary_is_of_methods_measured_here_and_of_whole_averages(runs):
    runs.zero_shot("Digits", 70.0, subset="base")
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0)
    for bits in (1, 2):
        options = {"bits": bits, "stored_bytes": 260}
        runs.base_to_new("QCoOp", "Digits", 70.0, 50.0 + bits, **options)
    (section,) = make_report(runs.root).sections
    assert section.headline == "H"
    assert [method.label for method in section.best_methods] == ["CoOp"]
    assert section.smallest_method.label == "QCoOp, 2 bits"  # the better of two


def test_an_average_with_gaps_is_no_best_of_a_summary(runs):
    runs.base_to_new("CoOp", "EuroSAT", 80.0, 60.0)
    (section,) = make_report(runs.root).sections
    assert section.best_methods == []
    assert section.smallest_method.label == "CoOp"
