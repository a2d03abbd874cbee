"""Several processes side by side on one machine, each on its own GPU or share of the cores."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import defer_signals


def run_side_by_side(command: Sequence[str], slots: int, logs: Path) -> None:
    """Run a command once in each slot, and wait for all of them.

    They end when an exception, such as Ctrl-C, leaves this function.

    Args:
        command: works on whatever no other process is working on.
        slots: how many.
        logs: folder for what each one writes to stderr, ``slot<i>.log``.
    """
    logs.mkdir(parents=True, exist_ok=True)
    gpus = visible_gpus()
    processes = []
    try:
        with defer_signals():  # no process is started and forgotten
            for slot in range(slots):
                with open(logs / f"slot{slot}.log", "a") as log:
                    environment = {**os.environ, **slot_environment(slot, slots, gpus)}
                    processes.append(subprocess.Popen(command, stderr=log, env=environment))
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def slot_environment(slot: int, slots: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return the variables that give a slot its GPU and its threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (cores or 1) // slots))
    return {
        "OMP_NUM_THREADS": threads,
        **({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}),
    }


def visible_gpus() -> list[str]:
    """Return the GPUs as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(i) for i, _ in enumerate(listed.stdout.splitlines())]
