"""Which plots are drawn, and of what."""

import pytest

from reporting.plots import comparable, section_plots
from reporting.report import make_report


@pytest.fixture
def plots(runs):
    """A function that returns the plots of the first section: captions by the kind of plot."""

    def plots():
        section = make_report(runs.root).sections[0]
        return {plot.slug.rsplit("-", 1)[-1]: plot.caption for plot in section_plots(section)}

    return plots


def test_averages_over_different_data_sets_are_not_drawn_together(runs):
    for trainer, shots, datasets in (
        ("CoOp", 1, ("EuroSAT", "UCF101")),
        ("CoOp", 4, ("EuroSAT", "UCF101")),
        ("MaPLe", 1, ("EuroSAT",)),
        ("CoCoOp", 1, ("EuroSAT", "UCF101")),
        ("CoCoOp", 4, ("EuroSAT",)),
    ):
        for dataset in datasets:
            runs.trained(trainer, dataset, 80.0, shots=shots)
    average, *_ = make_report(runs.root).sections[0].tables

    def drawn(*columns):
        means = comparable(average, columns)
        return {method.trainer: set(mean.dropna().index) for method, mean in means.iterrows()}

    assert drawn("1 shot", "4 shots") == {"CoOp": {"1 shot", "4 shots"}, "CoCoOp": {"1 shot"}}
    assert drawn("4 shots") == {"CoOp": {"4 shots"}}


def test_published_averages_have_no_equal_among_those_with_gaps(runs):
    runs.base_to_new("CoOp", "EuroSAT", 80.0, 60.0)
    average, *_ = make_report(runs.root).sections[0].tables
    assert [method.name for method in comparable(average, ["H"]).index] == ["CoOp"]


def test_halves_alone_and_plain_trainers_give_no_plot(runs, plots):
    runs.trained("CoOp", "Digits", 80.0, subset="base")
    assert plots() == {}


def test_base_to_new(runs, plots):
    runs.base_to_new("CoOp", "Digits", 80.0, 60.0)
    assert plots().keys() == {"off"}  # trade-off
    runs.base_to_new("QCoOp", "Digits", 80.0, 70.0, bits=1)
    assert plots().keys() == {"off", "bits"}


def test_curves_need_two_numbers_of_shots(runs, plots):
    runs.zero_shot("Digits", 50.0)
    runs.trained("CoOp", "Digits", 60.0, shots=1)
    assert plots() == {}
    runs.trained("CoOp", "Digits", 70.0, shots=2)
    assert plots().keys() == {"curves"}


def test_transfer_against_bits(runs):
    for bits in (1, 2):
        origin = runs.trained("QCoOp", "Characters", 80.0, bits=bits)
        runs.tested(origin, "Digits", 40.0 + bits)
    section = make_report(runs.root).sections[-1]
    (plot,) = section_plots(section)
    assert plot.slug.endswith("bits") and ">Digits</text>" in plot.svg


def test_of_many_classes_the_hardest_are_shown(runs, plots):
    names = [f"class {i}" for i in range(50)]
    per_class = {"total": [10] * 49 + [0], "correct": [0] * 9 + [9] * 40 + [0]}
    runs.trained("CoOp", "Digits", 80.0, classnames=names, per_class=per_class)
    captions = plots()
    assert captions.keys() == {"classes"}  # no confusion matrix was recorded
    assert "the 40 hardest of 49" in captions["classes"]


def test_class_names_with_dollars_are_no_formulas(runs):
    names = ["$x^", "a $ b $"]
    runs.trained("CoOp", "Digits", 80.0, classnames=names, confusion=[[9, 1], [2, 8]])
    (plot,) = section_plots(make_report(runs.root).sections[0])
    assert ">a $ b $</text>" in plot.svg


def test_weights_are_drawn_of_the_first_seed_that_recorded_them(runs):
    header = "epoch,parameter,mean,std,q01,q05,q25,q50,q75,q95,q99,fits,codebook"
    numbers = "0,{std},-3,-2,-1,0,1,2,3,{fits},-1 1"
    for seed in (2, 3):
        folder = runs.trained("QCoOp", "Digits", 80.0, bits=1, seed=seed) / "prompt_learner"
        folder.mkdir()
        lines = [f"{n},ctx,{numbers.format(std=1 + n, fits=n)}" for n in range(3)]
        (folder / "weights.csv").write_text("\n".join([header, *lines]))
    runs.trained("QCoOp", "Digits", 80.0, bits=1, seed=1)
    section = make_report(runs.root).sections[0]
    (plot,) = (plot for plot in section_plots(section) if plot.slug.endswith("weights"))
    assert "seed 2" in plot.caption and "tensors" not in plot.caption
    assert ">ctx</text>" in plot.svg
