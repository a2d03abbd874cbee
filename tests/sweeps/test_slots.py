"""Several processes side by side: what each one gets, and how all of them stop."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from sweeps.slots import default_slots, run_side_by_side, slot_environment, visible_gpus

REPOSITORY = Path(__file__).parents[2]


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


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_each_task_is_done_once_in_a_slot_that_logs_stderr(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "out").mkdir()

    def task(number):
        time.sleep(0.05)  # so that the other slot takes the next one
        print("to stderr", file=sys.__stderr__)
        given = os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]
        with open(tmp_path / "out" / str(number), "x") as file:
            file.write(" ".join(given))

    run_side_by_side([partial(task, i) for i in range(6)], 2, tmp_path / "logs")
    given = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert len(given) == 6 and set(given) == {"0 1", "1 1"}
    lines = [(tmp_path / f"logs/slot{slot}.log").read_text().splitlines() for slot in range(2)]
    assert all(lines) and sum(lines, []) == ["to stderr"] * 6


def test_one_process_for_each_core_that_has_a_share_and_memory(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    pages = 40 * 2**30 // os.sysconf("SC_PAGE_SIZE")
    sizes = {"SC_PHYS_PAGES": pages, "SC_PAGE_SIZE": os.sysconf("SC_PAGE_SIZE")}
    monkeypatch.setattr(os, "sysconf", sizes.get)
    assert [default_slots(shares) for shares in (1, 3, 99)] == [1, 3, 8]
    sizes["SC_PHYS_PAGES"] = pages // 4
    assert default_slots(99) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert default_slots(99) == 1


@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_request_to_stop_reaches_the_processes(tmp_path, request_):
    program = (
        "import os, sys, time; from pathlib import Path; from dassl.utils import exit_on_signals\n"
        "from sweeps.slots import run_side_by_side\n"
        "def task(): Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(60)\n"
        "with exit_on_signals(): run_side_by_side([task] * 2, 2, Path(sys.argv[1], 'logs'))"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as parent:
        while len(children := [p for p in tmp_path.iterdir() if p.name != "logs"]) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        parent.send_signal(request_)
        _, stderr = parent.communicate(timeout=30)
    if request_ != signal.SIGKILL:
        assert parent.returncode == 128 + request_
        assert stderr == "interrupted: the same command goes on from here\n"
    for child in children:
        deadline = time.monotonic() + 30
        while alive(int(child.name)):
            assert request_ == signal.SIGKILL and time.monotonic() < deadline
            time.sleep(0.05)


def alive(pid):
    """Whether there is such a process, beside those that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
