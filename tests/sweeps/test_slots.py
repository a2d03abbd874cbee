"""Several processes side by side: what each one gets, and how all of them stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeps.slots import run_side_by_side, slot_environment, visible_gpus

REPOSITORY = Path(__file__).parents[2]

# stands in for train.py: says what it was given, then works until it is stopped
CHILD = """
import os, sys, time
print("to stderr", file=sys.stderr)
name = os.environ.get("CUDA_VISIBLE_DEVICES", "none") + " " + os.environ["OMP_NUM_THREADS"]
open(sys.argv[1] + "/" + str(os.getpid()), "w").write(name)
time.sleep(float(sys.argv[2]))
"""


def test_slots_take_turns_at_gpus_and_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    given = [slot_environment(slot, 3, ["4", "7"]) for slot in range(3)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in given] == ["4", "7", "4"]
    assert {environment["OMP_NUM_THREADS"] for environment in given} == {"2"}
    assert slot_environment(0, 16, []) == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert slot_environment(0, 2, [])["OMP_NUM_THREADS"] == "5"


def test_gpus_are_those_that_the_user_left_visible_or_all(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7f")
    assert visible_gpus() == ["2", "GPU-7f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: B'\n")
    listing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus() == ["0", "1"]


def test_each_slot_runs_the_command_and_logs_its_stderr(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "out").mkdir()
    run_side_by_side([sys.executable, "-c", CHILD, tmp_path / "out", "0"], 2, tmp_path / "logs")
    assert sorted(p.read_text() for p in (tmp_path / "out").iterdir()) == ["0 1", "1 1"]
    for slot in range(2):
        assert (tmp_path / f"logs/slot{slot}.log").read_text() == "to stderr\n"


@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_reaches_the_processes(tmp_path, request_):
    (tmp_path / "out").mkdir()
    program = (
        "import sys; from pathlib import Path; from sweeps.slots import run_side_by_side\n"
        "from dassl.utils import exit_on_signals\n"
        "with exit_on_signals(): run_side_by_side(sys.argv[2:], 2, Path(sys.argv[1]))"
    )
    child = [sys.executable, "-c", CHILD, str(tmp_path / "out"), "60"]
    command = [sys.executable, "-c", program, str(tmp_path / "logs"), *child]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as parent:
        while len(list((tmp_path / "out").iterdir())) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        parent.send_signal(request_)
        _, stderr = parent.communicate(timeout=30)
    assert parent.returncode == 128 + request_
    assert stderr == "interrupted: the same command goes on from here\n"
    for file in (tmp_path / "out").iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.name), 0)
