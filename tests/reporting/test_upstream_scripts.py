"""scripts/parse_test_res.py and draw_curves.py, in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch):
    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setattr(sys, "path", sys.path[:])
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")

    return run


def test_means_over_seeds(runs, script, capsys):
    for name, accuracies in (("CoOp", (91.81, 92.01, 92.17)), ("MaPLe", (94.0,))):
        for seed, accuracy in enumerate(accuracies, 1):
            runs.trained(name, "Caltech101", accuracy, seed=seed)
    experiment = runs.root / "Caltech101" / "all" / "CoOp" / "shots16"
    script("parse_test_res.py", experiment, "--test-log")
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[1] == f"file: {experiment / 'seed1/results.json'}. accuracy: 91.81%. error: 8.19%. "
    )
    assert lines[-3:] == ["* accuracy: 92.00% +- 0.15%", "* error: 8.00% +- 0.15%", "==="]
    script("parse_test_res.py", experiment, "--ci95")
    assert "* accuracy: 92.00% +- 0.17%" in capsys.readouterr().out
    script("parse_test_res.py", runs.root, "--multi-exp")
    assert capsys.readouterr().out.endswith("performance\n* accuracy: 93.00%\n* error: 7.00%\n")
    with pytest.raises(SystemExit, match="no results.json"):
        script("parse_test_res.py", runs.root / "nothing")


def test_curves(runs, script, tmp_path):
    runs.trained("CoOp", "EuroSAT", 60.0, shots=1)
    with pytest.raises(SystemExit, match="no few-shot runs with two numbers of shots"):
        script("draw_curves.py", runs.root, "--save-dir", tmp_path / "curves")
    runs.trained("CoOp", "EuroSAT", 70.0, shots=16)
    script("draw_curves.py", runs.root, "--save-dir", tmp_path / "curves")
    (curves,) = (tmp_path / "curves").iterdir()
    assert "EuroSAT" in curves.read_text()
