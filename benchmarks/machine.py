"""What the numbers depend on, beside the code that is measured."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch.backends.cpu import get_cpu_capability

from benchmarks.runs import REPOSITORY
from qprompt.clip.weights import TINY_NAME
from trainers.base import resolve_precision


def describe(argv: Sequence[str], architecture: str, precision: str) -> dict[str, str]:
    """Return what a report begins with.

    Args:
        argv: arguments of ``python -m benchmarks``.
        architecture: one of :data:`benchmarks.models.ARCHITECTURES`.
        precision: PREC of the trainers.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *argv]),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "architecture": architecture + ("" if architecture == TINY_NAME else ", random weights"),
        "precision of trainers": resolve_precision(precision, device),
        "processor": f"{_processor()}, {os.cpu_count()} cores ({get_cpu_capability()})",
        "threads": str(torch.get_num_threads()),
        "GPU": torch.cuda.get_device_name() if device.type == "cuda" else "none",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
