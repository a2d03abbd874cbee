"""Which plots are drawn, and of what."""

import pytest

from reporting.methods import Method
from reporting.plots import comparable, section_plots
from reporting.report import make_report
from reporting.scores import Cell
from reporting.tables import make_table


@pytest.fixture
def plots(runs):
    """A function that returns the plots of the first section: captions by the kind of plot."""

    def plots():
        section = make_report(runs.root).sections[0]
        return {plot.slug.rsplit("-", 1)[-1]: plot.caption for plot in section_plots(section)}

    return plots


def test_averages_over_different_data_sets_are_not_drawn_together():
    wide, narrow = Cell(80.0, sets=3, of=11), Cell(90.0, sets=2, of=11)
    cells = {
        Method("A"): {"x": wide, "y": wide},
        Method("B"): {"x": narrow},
        Method("C"): {"x": wide, "y": narrow},
        Method("D", source="a paper"): {"x": Cell(70.0)},
    }
    table = make_table("t", ["x", "y"], cells, {}, "average")

    def drawn(*columns):
        return {r.method.trainer: set(r.cells) for r in comparable(table, columns)}

    # the published average, over all data sets, has no equal among the measured ones
    assert drawn("x", "y") == {"A": {"x", "y"}, "C": {"x"}}
    assert drawn("y") == {"A": {"y"}}


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
