"""Cross-dataset and domain-generalization tables."""

import pytest

from reporting.report import make_report


@pytest.fixture
def sections(runs):
    """A function that returns the sections by protocol."""
    return lambda: {section.protocol: section for section in make_report(runs.root).sections}


def means(section):
    (table,) = section.tables
    return {m.name: row.dropna().to_dict() for m, row in table.cells["mean"].iterrows()}


def test_targets_source_and_average_over_targets(runs, sections):
    for seed, shift in ((1, 0.0), (2, 2.0)):
        origin = runs.trained("CoOp", "Characters", 80.0 + shift, seed=seed)
        runs.tested(origin, "Digits", 40.0 + shift, shots=-1)
    section = sections()["Cross-dataset"]
    assert section.setting.title == "from Characters, embedded stand-ins, ViT-B/16, 16 shots"
    assert section.tables[0].columns == ["Characters", "Digits"]  # one target: no average
    assert means(section) == {"CoOp": {"Characters": 81.0, "Digits": 41.0}}


def test_shifted_versions_of_the_source_are_domain_generalization(runs, sections):
    origin = runs.trained("CoOp", "Digits", 80.0)
    for target, accuracy in (("DigitsNoise", 60.0), ("DigitsBlur", 70.0), ("Characters", 20.0)):
        runs.tested(origin, target, accuracy)
    found = sections()
    domains = found["Domain generalization"]
    assert domains.tables[0].columns == ["Digits", "DigitsNoise", "DigitsBlur", "average"]
    average = domains.tables[0].cells.xs("average", axis=1, level="column").iloc[0]
    assert (average["mean"], average["sets"], average["of"]) == (65.0, 2, 4)
    assert means(found["Cross-dataset"]) == {"CoOp": {"Digits": 80.0, "Characters": 20.0}}


def test_imagenet_to_the_benchmark_stands_beside_published_numbers(runs, sections):
    origin = runs.trained("CoOp", "ImageNet", 71.0)
    runs.tested(origin, "EuroSAT", 46.0)
    runs.tested(origin, "ImageNetA", 50.0)
    found = sections()
    cross = means(found["Cross-dataset"])
    assert cross["CoOp"] == {"ImageNet": 71.0, "EuroSAT": 46.0, "average": 46.0}
    assert cross["MaPLe (published)"]["average"] == 66.30
    cells = found["Cross-dataset"].tables[0].cells.iloc[0]
    assert (cells["sets", "average"], cells["of", "average"]) == (1, 10)
    shifted = means(found["Domain generalization"])
    mean = (64.07 + 49.15 + 50.90 + 76.98) / 4
    assert shifted["MaPLe (published)"]["average"] == pytest.approx(mean)


def test_a_missing_target_is_a_gap(runs, sections):
    first = runs.trained("CoOp", "Characters", 80.0)
    second = runs.trained("QCoOp", "Characters", 80.0, bits=1)
    runs.tested(first, "Digits", 40.0)
    runs.tested(second, "Digits", 41.0)
    runs.tested(second, "DigitsNoise", 30.0)
    found = means(sections()["Cross-dataset"])
    assert found["CoOp"].keys() == {"Characters", "Digits", "average"}
    assert found["QCoOp"].keys() == {"Characters", "Digits", "DigitsNoise", "average"}


def test_only_the_source_run_of_the_same_setting_stands_beside(runs, sections):
    origin = runs.trained("CoOp", "Characters", 80.0, name="a")
    runs.trained("CoOp", "Characters", 10.0, name="b", OPTIM__LR=0.5)
    runs.trained("CoOp", "Characters", 10.0, shots=4)
    runs.tested(origin, "Digits", 40.0)
    found = means(sections()["Cross-dataset"])
    assert found == {"CoOp": {"Characters": 80.0, "Digits": 40.0}}


def test_zero_shot_stands_beside_on_the_same_data_sets(runs, sections):
    runs.tested(runs.trained("CoOp", "Characters", 80.0), "Digits", 40.0)
    for dataset, accuracy in (("Characters", 30.0), ("Digits", 20.0), ("DigitsBlur", 10.0)):
        runs.zero_shot(dataset, accuracy)
    found = means(sections()["Cross-dataset"])
    assert found["ZeroshotCLIP"] == {"Characters": 30.0, "Digits": 20.0}


def test_stand_ins_and_real_targets_are_sections_of_their_own(runs):
    origin = runs.trained("CoOp", "ImageNet", 71.0)
    for target in ("EuroSAT", "Digits"):
        runs.tested(origin, target, 40.0)
    found = [s for s in make_report(runs.root).sections if s.protocol == "Cross-dataset"]
    columns = {section.setting.family: section.tables[0].columns for section in found}
    assert columns == {
        "benchmark data sets": ["ImageNet", "EuroSAT", "average"],
        "embedded stand-ins": ["Digits"],
    }
