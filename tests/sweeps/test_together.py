"""Sweeps whose runs train together: as alone up to rounding, and the same from start to start."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sweeps.grid import read_grids
from sweeps.jobs import expand

REPOSITORY = Path(__file__).parents[2]


def trainings(grid, root, output):
    return [job.training for job in expand(read_grids(json.dumps([grid])), root, str(output))]


def learned(folder):
    """The weights of the last checkpoint, by name."""
    (path,) = folder.glob("*/model.pth.tar-*")
    return torch.load(path, weights_only=True)["state_dict"]


def accuracy(folder):
    return json.loads((folder / "results.json").read_text())["metrics"]["accuracy"]


@pytest.fixture(scope="module")
def grid(quick):
    opts = {"OPTIM.MAX_EPOCH": 40}
    trainers = ["QCoOp", "CoOp"]
    return quick("few_shot", datasets=["digits"], trainers=trainers, bits=[1, 3], opts=opts)


def test_a_killed_group_and_one_run_of_it_go_on(sweep, process, grid, data_root, tmp_path):
    """Killed in the middle; then one run goes on alone, and the others together."""
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    assert sweep(quiet, grid) == 0

    slow = {**grid, "opts": {**grid["opts"], "TRAIN.CHECKPOINT_FREQ": 1}}
    runs = trainings(slow, str(data_root), killed)
    flags = ["--root", data_root, "--output-dir", killed, "--sweep", json.dumps([slow])]
    command = [sys.executable, "train.py", *map(str, flags)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as first:
        while any(len(list(run.folder.glob("*/model*"))) < 2 for run in runs):
            assert first.poll() is None
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert not list(killed.rglob("results.json"))

    alone = process(*runs[0].argv)
    assert alone.returncode == 0, alone.stderr
    assert "will resume training" in alone.stdout
    assert len(list(killed.rglob("results.json"))) == 1
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(": accuracy") == len(runs) - 1
    for run, twin in zip(runs, trainings(grid, str(data_root), quiet), strict=True):
        assert accuracy(run.folder) == pytest.approx(accuracy(twin.folder), abs=1)
