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
