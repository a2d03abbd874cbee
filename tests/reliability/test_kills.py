"""Runs and sweeps killed at a file operation and started again: the files are the undisturbed ones.

By default at the operations that matter most. The long form kills each kind of run at every one of
its operations, and again while it is started again, 300 times in all:

    python -m pytest tests/reliability -m slow -rP
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

CASES = {
    "CoOp": ("CoOp", []),
    "QCoOp": ("QCoOp", []),
    "QMaPLe": ("QMaPLe", []),
    "ptq": ("QCoOp", ["TRAINER.QPROMPT.MODE", "ptq"]),
    "best_val": ("QCoOp", ["TEST.FINAL_MODEL", "best_val"]),
}
SWEEPS = {"sweep": 1, "sweep side by side": 2}  # how many processes are on it
GRID = {
    "protocol": "base2new",
    "trainers": ["CoOp", "QCoOp"],
    "datasets": ["digits"],
    "shots": [1],
    "seeds": [1],
    "config": "tiny",
    "opts": {"TRAIN.CHECKPOINT_FREQ": 1, "OPTIM.MAX_EPOCH": 1},
}
KILLS = 300
OPTS = ["TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.MAX_EPOCH", "2"]
OPTS += ["DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", "base"]


class Runs:
    """Runs into one folder, in forks of one process that has imported everything."""

    def __init__(self, data_root, folder):
        self.data_root, self.folder, self.known = data_root, folder, {}
        self.server = subprocess.Popen(
            [sys.executable, HERE / "killable.py", folder.parent / "report.json"],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, case, kill_at=None):
        """Run train.py, killed before an operation; return its exit status and what it did.

        Of a sweep side by side, the first process is killed.
        """
        argv = ["--root", str(self.data_root), "--output-dir", str(self.folder)]
        if case in SWEEPS:
            # runs that train together would be those of a single start up to rounding alone
            argv += ["--sweep", json.dumps(GRID), "--together", "1"]
        else:
            trainer, opts = CASES[case]
            argv += ["--seed", "1", "--trainer", trainer]
            argv += ["--dataset-config-file", "configs/datasets/digits.yaml"]
            argv += ["--config-file", f"configs/trainers/{trainer}/tiny.yaml", *OPTS, *opts]
        request = {"argv": argv, "folder": str(self.folder), "kill_at": kill_at}
        request["others"] = SWEEPS.get(case, 1) - 1
        print(json.dumps(request), file=self.server.stdin, flush=True)
        answer = json.loads(self.server.stdout.readline())
        return answer["status"], answer["operations"]

    def undisturbed(self, case):
        """What train.py does in an empty folder, and what it leaves."""
        if case not in self.known:
            shutil.rmtree(self.folder, ignore_errors=True)
            status, operations = self.start("sweep" if case in SWEEPS else case)
            assert status == 0
            self.known[case] = operations, self.content()
        return self.known[case]

    def content(self):
        """All files but logs, as bytes; of a record, what does not depend on the clock."""
        files = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_dir() or path.name.startswith((".lock", "log.txt", "events.out")):
                continue
            files[name] = path.read_bytes()
            if path.name == "results.json":
                files[name] = json.loads(files[name])
                for key in ("wall_time_s", "peak_memory_bytes"):
                    files[name].pop(key)
        return files

    def check(self, case, expected, *kills):
        """Kill a run, kill it again, ..., let it end, and compare what it leaves."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for kill_at in kills:
            self.start(case, kill_at)
        if SWEEPS.get(case, 1) > 1:
            self.start(case)  # the first of several may not be the last one to end
        status, _ = self.start("sweep" if case in SWEEPS else case)
        assert status == 0, f"{case} killed at {kills}"
        found = self.content()
        assert found.keys() == expected.keys(), f"{case} killed at {kills}"
        differing = [name for name in expected if found[name] != expected[name]]
        assert not differing, f"{case} killed at {kills}"


@pytest.fixture(scope="module")
def runs(data_root, tmp_path_factory):
    runs = Runs(data_root, tmp_path_factory.mktemp("kills") / "run")
    with runs.server:
        yield runs
        runs.server.stdin.close()


@pytest.mark.parametrize(
    ("case", "file"),
    [
        ("CoOp", "prompt_learner/checkpoint"),
        ("QCoOp", "prompt_learner/prompt.safetensors"),
        ("QCoOp", "prompt_learner/checkpoint"),
        ("QMaPLe", "MultiModalPromptLearner/prompt-inference.safetensors"),
        ("ptq", "results.json"),
        ("best_val", "prompt_learner/prompt-best.safetensors"),
        ("best_val", "prompt_learner/model-best.pth.tar"),
    ],
)
def test_killed_before_a_file_takes_its_place(runs, case, file):
    operations, expected = runs.undisturbed(case)
    last = max(i for i, text in enumerate(operations) if text == f"os.rename {file}")
    runs.check(case, expected, last)


@pytest.mark.parametrize("case", SWEEPS)
def test_killed_sweep(runs, case):
    operations, expected = runs.undisturbed(case)
    results = [i for i, text in enumerate(operations) if re.match("os.rename .*results", text)]
    runs.check(case, expected, results[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *SWEEPS])
def test_killed_anywhere(runs, case):
    operations, expected = runs.undisturbed(case)
    draw, kills = random.Random(case), len(operations)
    for kill_at in range(len(operations)):
        runs.check(case, expected, kill_at)
    while kills < KILLS / len(CASES):
        runs.check(case, expected, *draw.choices(range(len(operations)), k=2))
        kills += 2
    print(f"{case}: {len(operations)} operations, {kills} kills")
