"""Reading results.json files, and finding out where their weights were trained."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from reporting.report import make_report
from reporting.results import UnreadableResultError, read_runs


def edit(folder, **fields):
    path = folder / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def origins(runs):
    found, notes = read_runs(runs.root)
    assert not notes
    return {(r.dataset, r.subset): r.source for r in found.itertuples()}


def test_an_evaluation_knows_where_its_weights_were_trained(runs):
    runs.tested(runs.trained("CoOp", "ImageNet", 70.0), "EuroSAT", 50.0)
    assert origins(runs) == {("ImageNet", "all"): "ImageNet", ("EuroSAT", "all"): "ImageNet"}


def test_training_settings_are_those_of_the_training(runs):
    origin = runs.trained("CoOp", "ImageNet", 70.0, shots=4, seed=3)
    folder = runs.tested(origin, "EuroSAT", 50.0, shots=-1)
    edit(folder, seed=9)
    (run,) = [run for run in read_runs(runs.root)[0].itertuples() if run.dataset == "EuroSAT"]
    assert (run.shots, run.seed) == (4, 3)
    assert run.settings["OPTIM.LR"] == 0.002


def test_a_packed_prompt_in_the_folder_of_its_run_is_traced(runs):
    origin = runs.trained("CoOp", "ImageNet", 70.0)
    folder = runs.tested(origin, "EuroSAT", 50.0)
    edit(folder, weights=str(origin / "prompt.safetensors"))
    assert origins(runs)["EuroSAT", "all"] == "ImageNet"


def test_relative_weights_are_found_in_a_tree_that_was_moved(runs, tmp_path_factory):
    origin = runs.trained("CoOp", "ImageNet", 70.0)
    folder = runs.tested(origin, "EuroSAT", 50.0)
    relative = os.path.relpath(origin / "prompt_learner" / "model.pth.tar-50", runs.root.parent)
    edit(folder, weights=relative)
    moved = tmp_path_factory.mktemp("elsewhere") / runs.root.name
    shutil.move(runs.root, moved)
    runs.root = moved
    assert origins(runs)["EuroSAT", "all"] == "ImageNet"


def test_the_recorded_origin_goes_before_what_lies_at_the_path(runs):
    origin = runs.trained("CoOp", "ImageNet", 70.0)
    folder = runs.tested(origin, "EuroSAT", 50.0)
    trained_with = {"DATASET": {"NAME": "SUN397", "NUM_SHOTS": 16}, "SEED": 1}
    edit(folder, trained_with=trained_with)
    assert origins(runs)["EuroSAT", "all"] == "SUN397"


def test_an_evaluation_of_unknown_weights_is_in_no_table_and_named(runs):
    runs.base_to_new("CoOp", "EuroSAT", 90.0, 60.0)
    edit(runs.tested(runs.trained("CoOp", "ImageNet", 70.0), "UCF101", 1.0), weights="gone/a.pth")
    report = make_report(runs.root)
    (note,) = report.notes
    assert "UCF101" in note and "not known" in note
    assert not any("UCF101" in set(section.runs.dataset) for section in report.sections)


def test_weights_that_were_initialised_and_only_tested_count_as_loaded(runs):
    origin = runs.trained("CoOp", "ImageNet", 70.0)
    folder = runs.tested(origin, "EuroSAT", 50.0)
    config = json.loads((folder / "results.json").read_text())["config"]
    config["MODEL"]["INIT_WEIGHTS"] = str(origin / "prompt_learner" / "model.pth.tar-50")
    edit(folder, weights=None, epoch=None, config=config)
    assert origins(runs)["EuroSAT", "all"] == "ImageNet"


def test_trained_on_the_new_classes_is_no_generalization(runs):
    runs.base_to_new("CoOp", "EuroSAT", 90.0, 60.0)
    runs.trained("CoOp", "EuroSAT", 99.0, subset="new", seed=2)
    (note,) = make_report(runs.root).notes
    assert "trained on new classes of EuroSAT and tested on new classes of EuroSAT" in note


def test_folders_of_own_images_are_different_data_sets(runs):
    for root in ("/data/birds", "/data/boats"):
        runs.trained("CoOp", "Folder", len(root), name=root[6:], DATASET__ROOT=root)
    found, _ = read_runs(runs.root)
    assert set(found.dataset) == {"Folder birds", "Folder boats"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no complete result"),
        ('{"format_version": 1}', "no complete result"),
        ('{"format_version": 9}', "format version 9, this program reads 1"),
    ],
)
def test_unreadable_results_are_named(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UnreadableResultError, match=message) as error:
        read_runs(tmp_path)
    assert str(tmp_path / "results.json") in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"confusion": [[1, 0], [0, 1]]},
        {"confusion": [[1, 0, 0], [0, 1], [0, 0, 1]]},
        {"per_class": {"total": [1, 2], "correct": [1, 1, 1]}},
    ],
)
def test_class_results_that_do_not_fit_the_class_names_are_named(runs, fields):
    runs.trained("CoOp", "EuroSAT", 90.0, classnames=["a", "b", "c"], **fields)
    with pytest.raises(UnreadableResultError, match="does not fit 3 classnames"):
        read_runs(runs.root)


def test_empty_folder_ends_with_a_message(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "reporting", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no results.json or finished log.txt below")
