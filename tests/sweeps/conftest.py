"""Whole sweeps on the embedded data sets, in this process and as processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def quick():
    """A grid on the tiny backbone that takes seconds."""

    def grid(protocol, **keys):
        common = {"trainers": ["QCoOp"], "config": "tiny", "seeds": [1], "shots": [1]}
        opts = {"OPTIM.MAX_EPOCH": 2, "TRAIN.CHECKPOINT_FREQ": 1}
        return {"protocol": protocol, **common, "opts": opts, **keys}

    return grid


@pytest.fixture
def sweep(data_root, monkeypatch):
    """Run grids in this process by train.py's main; return its exit code."""

    def run(output, *grids, root=data_root, together="auto"):
        import train

        monkeypatch.chdir(REPOSITORY)
        flags = ["--root", str(root), "--output-dir", str(output), "--sweep", json.dumps(grids)]
        flags += ["--together", str(together)]
        try:
            train.main(flags)
        except SystemExit as end:
            return end.code
        return 0

    return run


@pytest.fixture(scope="session")
def process():
    """Run train.py with some arguments as a process of its own."""

    def run(*arguments):
        command = [sys.executable, "train.py", *map(str, arguments)]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    return run
