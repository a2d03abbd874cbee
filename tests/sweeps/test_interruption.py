"""All protocols, killed in the middle and started again: the report is that of a quiet run."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from reporting.writers import write_report
from sweeps.grid import read_grids
from sweeps.jobs import expand

REPOSITORY = Path(__file__).parents[2]
EUROSAT = REPOSITORY.parent / "shared/data/eurosat_small.tar.gz"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with EuroSAT-small; the digits are made there."""
    if not EUROSAT.exists():
        pytest.skip(f"{EUROSAT} is not there")
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(EUROSAT) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def grids(quick):
    both = {"datasets": ["digits", "eurosat"]}
    return [
        quick("base2new", **both, bits=[2]),
        quick("few_shot", datasets=["digits"], trainers=["CoOp", "QCoOp"]),
        quick("cross_dataset", source="digits", datasets=["eurosat"]),
        quick("domain_generalization", source="digits"),
    ]


def report(folder):
    """All that the report says, by file."""
    output = folder.parent / "reports" / folder.name
    write_report(folder, output)
    texts = [path for path in output.iterdir() if path.suffix in (".md", ".csv", ".tex")]
    assert len(texts) > 4
    return {path.name: path.read_text().replace(str(folder), "") for path in texts}


def results(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("results.json"))


def test_killed_sweep_started_again_ends_with_the_same_report(sweep, grids, root, tmp_path):
    """First one process, killed; then two side by side, which go on from what it left."""
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    assert sweep(quiet, *grids, root=root) == 0

    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(grids))
    launch = [sys.executable, "-m", "sweeps", "file", str(file), "--root", str(root)]
    launch += ["--output", str(disturbed)]
    with subprocess.Popen(launch, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as first:
        while len(results(disturbed)) < 4:
            assert first.poll() is None
            time.sleep(0.05)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert 4 <= len(results(disturbed)) < len(results(quiet))

    second = subprocess.run(
        [*launch, "--jobs", "2"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert second.returncode == 0, second.stderr
    assert f"{len(results(quiet))} of {len(results(quiet))} runs finished" in second.stderr
    assert results(disturbed) == results(quiet)
    assert report(disturbed) == report(quiet)
    started = [line for line in second.stdout.splitlines() if line.endswith("/seed1")]
    assert len(started) == len(set(started)), "a run was started twice"
    assert os.listdir(disturbed / "slots")


def trainings(grid, root, output):
    return [job.training for job in expand(read_grids(json.dumps([grid])), str(root), str(output))]


def accuracy(folder):
    return json.loads((folder / "results.json").read_text())["metrics"]["accuracy"]


def test_a_killed_group_and_one_run_of_it_go_on(sweep, process, quick, data_root, tmp_path):
    """Killed in the middle; then one run goes on alone, and the others together."""
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    opts = {"OPTIM.MAX_EPOCH": 40, "TRAIN.CHECKPOINT_FREQ": 1}
    common = {"datasets": ["digits"], "bits": [1, 3], "opts": opts}
    grid = quick("few_shot", trainers=["QCoOp", "CoOp"], **common)
    assert sweep(quiet, grid) == 0

    runs = trainings(grid, data_root, killed)
    flags = ["--root", data_root, "--output-dir", killed, "--sweep", json.dumps([grid])]
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
    for run, twin in zip(runs, trainings(grid, data_root, quiet), strict=True):
        assert accuracy(run.folder) == pytest.approx(accuracy(twin.folder), abs=1)
