"""Several processes side by side on one machine, each on its own GPU or share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dassl.utils import defer_signals, exit_on_signals
from sweeps import SweepError

Task = Callable[[], object]

MEMORY = 4 * 2**30  # bytes for a process on the CPU: ViT-B/16, its images and texts need less


def run_side_by_side(tasks: Sequence[Task], slots: int, logs: Path) -> None:
    """Let processes do tasks, each the next one that none has taken, and wait for all of them.

    They are forked, so that nothing is imported again; torch must have computed nothing before.
    They end when an exception, such as Ctrl-C, leaves this function, or when this process dies.

    Args:
        tasks: what there is to do.
        slots: how many processes.
        logs: folder for what each one writes to stderr, ``slot<i>.log``.

    Raises:
        SweepError: the operating system cannot fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise SweepError(
            "--jobs forks processes, as Linux can: start the command several times instead, each "
            "takes what no other is on"
        )
    logs.mkdir(parents=True, exist_ok=True)
    gpus = visible_gpus()
    context: Any = multiprocessing.get_context("fork")
    taken = context.Value("i", 0)
    processes = []
    try:
        with defer_signals():  # no process is started and forgotten
            for slot in range(slots):
                given = slot_environment(slot, slots, gpus), logs / f"slot{slot}.log"
                process = context.Process(target=_do_next, args=(tasks, taken, *given))
                process.start()
                processes.append(process)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _do_next(tasks: Sequence[Task], taken: Any, environment: dict[str, str], log: Path) -> None:
    """Do the next task until there is none left."""
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    with open(log, "a") as file:
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with exit_on_signals():
        while True:
            with taken.get_lock():
                number = taken.value
                taken.value += 1
            if number >= len(tasks):
                return
            tasks[number]()


def _die_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os._exit(1)


def slot_environment(slot: int, slots: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return the variables that give a slot its GPU and its threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (cores or 1) // slots))
    return {
        "OMP_NUM_THREADS": threads,
        **({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}),
    }


def default_slots(shares: int) -> int:
    """Return how many processes pay: one with a GPU; else one for each core, if memory allows.

    Args:
        shares: how many parts the work has that share next to nothing.
    """
    if sys.platform != "linux" or visible_gpus():  # macOS can fork, but its libraries crash then
        return 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(torch.get_num_threads(), shares, memory // MEMORY))


def visible_gpus() -> list[str]:
    """Return the GPUs as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(i) for i, _ in enumerate(listed.stdout.splitlines())]
