"""Few-shot tables."""

from reporting.report import make_report


def test_accuracy_by_shots_with_zero_shot_at_none(runs):
    runs.zero_shot("Digits", 50.0)
    for shots, accuracy in ((1, 60.0), (16, 80.0), (-1, 90.0)):
        runs.trained("CoOp", "Digits", accuracy, shots=shots)
    (section,) = make_report(runs.root).sections
    assert section.protocol == "Few-shot"
    (table,) = section.tables
    assert table.columns == ["0 shots", "1 shot", "16 shots", "all images"]
    zero, coop = (mean.dropna().to_dict() for _, mean in table.cells["mean"].iterrows())
    assert zero == {"0 shots": 50.0}
    assert coop == {
        "1 shot": 60.0,
        "16 shots": 80.0,
        "all images": 90.0,
    }


def test_each_number_of_shots_is_averaged_over_the_data_sets_that_have_it(runs):
    runs.trained("CoOp", "Digits", 60.0, shots=1)
    runs.trained("CoOp", "Digits", 80.0, shots=2)
    runs.trained("CoOp", "Characters", 40.0, shots=1)
    average = make_report(runs.root).sections[0].tables[0]
    cells = average.cells.iloc[0]
    assert average.title == "Average over 2 data sets"
    assert (cells["mean", "1 shot"], cells["sets", "1 shot"], cells["of", "1 shot"]) == (50.0, 2, 2)
    assert (cells["mean", "2 shots"], cells["sets", "2 shots"], cells["of", "2 shots"]) == (
        80.0,
        1,
        2,
    )


def test_schedules_that_follow_the_shots_are_one_method(runs):
    for shots, epochs in ((1, 50), (16, 200)):
        runs.trained("CoOp", "Digits", 60.0, shots=shots, OPTIM__MAX_EPOCH=epochs)
    (section,) = make_report(runs.root).sections
    assert [method.name for method in section.tables[0].cells.index] == ["CoOp"]
    assert "OPTIM.MAX_EPOCH (200, 50)" in section.notes[0]


def test_zero_shot_is_shown_where_something_was_trained(runs):
    runs.trained("CoOp", "Digits", 60.0)
    for dataset in ("Digits", "DigitsNoise"):
        runs.zero_shot(dataset, 50.0)
    assert [table.dataset for table in make_report(runs.root).sections[0].tables] == ["Digits"]
